"""What production stores: tables, migrations, intake, erasure, exports."""
