"""The campaign behind docs/results.md: experiment folders in, one record and one page out.

From the project's root:
    .venv/bin/evenhand run configs/experiments/campaign/modules.json --out experiments/campaign/modules
    .venv/bin/python -m benchmarks.campaign collect     experiments/campaign -> docs/results/campaign.json
    .venv/bin/python -m benchmarks.campaign render      campaign.json -> docs/results.md and its plots
"""  # noqa: E501
