//! The number that was committed last: an offset of a consumer group that nobody consumes with. Kafka commits it with the
//! messages of a transaction, or not at all.

use bigpeer_changefeed::KafkaSpec;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use crate::client::{ASK, config, create, told};

/// A feed's consumer group.
pub(crate) struct Group {
    consumer: BaseConsumer,
    topic: String,
}

impl Group {
    /// The group of this name, for a feed's topic.
    pub(crate) fn open(spec: &KafkaSpec, name: &str) -> Result<Self, String> {
        let mut config = config(spec);
        // Offsets of a transaction that is being ended are waited for.
        config.set("group.id", name).set("isolation.level", "read_committed").set("enable.auto.commit", "false");
        Ok(Self { consumer: create(&config)?, topic: spec.topic.clone() })
    }

    /// The number that was committed last, if one was. Blocks.
    pub(crate) fn committed(&self) -> Result<Option<u64>, String> {
        let cannot = |error: KafkaError| format!("the brokers do not say what was committed: {}", told(&error));
        let mut asked = TopicPartitionList::new();
        asked.add_partition(&self.topic, 0);
        let found = self.consumer.committed_offsets(asked, ASK).map_err(cannot)?;
        let Some(place) = found.find_partition(&self.topic, 0) else { return Ok(None) };
        place.error().map_err(cannot)?;
        Ok(match place.offset() {
            Offset::Offset(number) => u64::try_from(number).ok(),
            Offset::Beginning | Offset::End | Offset::Stored | Offset::Invalid | Offset::OffsetTail(_) => None,
        })
    }

    /// What a transaction commits to say that `number` is done.
    pub(crate) fn at(&self, number: u64) -> Result<(TopicPartitionList, ConsumerGroupMetadata), KafkaError> {
        let mut offsets = TopicPartitionList::new();
        let number = i64::try_from(number).unwrap_or(i64::MAX);
        offsets.add_partition_offset(&self.topic, 0, Offset::Offset(number))?;
        let metadata = self.consumer.group_metadata().ok_or(KafkaError::Canceled)?;
        Ok((offsets, metadata))
    }
}
