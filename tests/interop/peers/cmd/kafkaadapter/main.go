// Command kafkaadapter reads a topic in a consumer group and sends each record
// as a CloudEvent, the way Knative's Go receive adapter for KafkaSource does:
// sarama and the Go SDK, one goroutine a partition, one record in flight in
// each, six tries, an offset marked when its record was accepted and committed
// within a second; and for each record a span, a retrying HTTP client that
// passes the span on, and a measurement with the labels that Knative's
// event_count has. With -bare none of the last three, which is the least that
// a Go program needs. It is the peer in our Kafka benchmark, written for that;
// it wraps plain records only.
package main

import (
	"context"
	"errors"
	"flag"
	"log"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/IBM/sarama"

	"wellhead.invalid/peers/internal/peer"
)

const rebalanceTimeout = 60 * time.Second

func main() {
	log.SetFlags(0)
	brokers := flag.String("brokers", "", "brokers, comma-separated")
	topic := flag.String("topic", "", "topic to read from its beginning")
	group := flag.String("group", "", "consumer group")
	sink := flag.String("sink", "", "URL of the sink")
	bare := flag.Bool("bare", false, "without spans, measurements and the retrying client")
	peer.CoresFlag()
	flag.Parse()
	if *brokers == "" || *topic == "" || *group == "" || *sink == "" {
		log.Fatal("kafkaadapter: -brokers, -topic, -group and -sink are required")
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	sender, err := newSender(*sink, *bare)
	if err != nil {
		log.Fatal("kafkaadapter: ", err)
	}
	if err := run(ctx, strings.Split(*brokers, ","), *topic, *group, handler{sender}); err != nil {
		log.Fatal("kafkaadapter: ", err)
	}
}

func run(ctx context.Context, brokers []string, topic, group string, handler handler) error {
	config := sarama.NewConfig()
	config.Version = sarama.V2_1_0_0
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	consumers, err := sarama.NewConsumerGroup(brokers, group, config)
	if err != nil {
		return err
	}
	defer consumers.Close()
	for ctx.Err() == nil {
		// Returns at each rebalance.
		if err := consumers.Consume(ctx, []string{topic}, handler); err != nil && !errors.Is(err, context.Canceled) {
			return err
		}
	}
	return nil
}

// sender sends one record, with its tries.
type sender interface {
	send(ctx context.Context, record *sarama.ConsumerMessage) error
}

// handler is a sarama.ConsumerGroupHandler.
type handler struct{ sender sender }

func (h handler) Setup(sarama.ConsumerGroupSession) error   { return nil }
func (h handler) Cleanup(sarama.ConsumerGroupSession) error { return nil }

// ConsumeClaim runs in a goroutine of its own for each partition. Each record
// gets another one, whose end is waited for: beyond the session's end no longer
// than members may take over a rebalance.
func (h handler) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	sent := make(chan error)
	for record := range claim.Messages() {
		ctx, cancel := context.WithCancel(context.Background())
		go func() { sent <- h.sender.send(ctx, record) }()
		var err error
		select {
		case err = <-sent:
		case <-session.Context().Done():
			select {
			case err = <-sent:
			case <-time.After(rebalanceTimeout):
				cancel()
				err = <-sent
			}
		}
		cancel()
		if err != nil {
			log.Print("kafkaadapter: ", err)
			continue
		}
		session.MarkMessage(record, "")
	}
	return nil
}
