"""From a run folder to what may be served or given away: what is checked, proved and written."""
