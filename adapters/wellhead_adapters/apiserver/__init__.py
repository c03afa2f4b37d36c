"""The adapter of ApiServerSource: changes of Kubernetes objects become events."""
