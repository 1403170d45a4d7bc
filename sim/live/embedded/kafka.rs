//! A Kafka-protocol broker inside this process: a stand-in, whose figures are never Kafka's.
