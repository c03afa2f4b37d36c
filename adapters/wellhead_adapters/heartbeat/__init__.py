"""Heartbeats at a steady period: a drop-in for Knative's heartbeats image, and the adapter to copy for one's own."""
