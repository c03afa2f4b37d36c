"""What GitLab tells by webhooks, as events (Knative's GitLabSource); README.md tells the rest."""
