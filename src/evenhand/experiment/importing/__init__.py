"""Results that were made elsewhere, brought into a run folder: read, checked, measured, written."""
