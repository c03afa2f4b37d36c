"""Kafka records as CloudEvents: what Knative's KafkaSource sends, in order by partition or by key."""
