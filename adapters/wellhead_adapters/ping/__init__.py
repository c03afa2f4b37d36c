"""Ticks on a schedule: what Knative's PingSource sends, at the instants at which robfig/cron would."""
