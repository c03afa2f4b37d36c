"""What of Kubernetes the library needs: requests to an API server, and watches that miss nothing."""
