// Command kafkaadapter reads a topic in a consumer group and sends each record
// as a CloudEvent, the way Knative's Go receive adapter for KafkaSource does:
// sarama and the Go SDK, one goroutine a partition, one record in flight in
// each, six tries, an offset marked when its record was accepted and committed
// within a second. It is the peer in our Kafka benchmark, written for that; it
// wraps plain records only.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/IBM/sarama"
	cloudevents "github.com/cloudevents/sdk-go/v2"
	"github.com/cloudevents/sdk-go/v2/binding"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"

	"wellhead.invalid/peers/internal/peer"
)

const (
	tries        = 6
	firstBackoff = 50 * time.Millisecond
)

func main() {
	log.SetFlags(0)
	brokers := flag.String("brokers", "", "brokers, comma-separated")
	topic := flag.String("topic", "", "topic to read from its beginning")
	group := flag.String("group", "", "consumer group")
	sink := flag.String("sink", "", "URL of the sink")
	peer.CoresFlag()
	flag.Parse()
	if *brokers == "" || *topic == "" || *group == "" || *sink == "" {
		log.Fatal("kafkaadapter: -brokers, -topic, -group and -sink are required")
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, strings.Split(*brokers, ","), *topic, *group, *sink); err != nil {
		log.Fatal("kafkaadapter: ", err)
	}
}

func run(ctx context.Context, brokers []string, topic, group, sink string) error {
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
		if err := consumers.Consume(ctx, []string{topic}, newSender(sink)); err != nil && !errors.Is(err, context.Canceled) {
			return err
		}
	}
	return nil
}

// sender is a sarama.ConsumerGroupHandler.
type sender struct {
	client *http.Client
	sink   string
}

func newSender(sink string) *sender {
	// Knative's defaults: a connection kept for each of up to 100 requests at a time.
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConns = 1000
	transport.MaxIdleConnsPerHost = 100
	return &sender{client: &http.Client{Transport: transport}, sink: sink}
}

func (s *sender) Setup(sarama.ConsumerGroupSession) error   { return nil }
func (s *sender) Cleanup(sarama.ConsumerGroupSession) error { return nil }

// ConsumeClaim runs in a goroutine of its own for each partition.
func (s *sender) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for record := range claim.Messages() {
		if err := s.send(session.Context(), record); err != nil {
			log.Print("kafkaadapter: ", err)
			continue
		}
		session.MarkMessage(record, "")
	}
	return nil
}

func (s *sender) send(ctx context.Context, record *sarama.ConsumerMessage) error {
	event := wrapped(record)
	var err error
	for attempt := range tries {
		if attempt > 0 {
			time.Sleep(firstBackoff << (attempt - 1))
		}
		if err = s.try(ctx, event); err == nil {
			return nil
		}
	}
	return err
}

func (s *sender) try(ctx context.Context, event *cloudevents.Event) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.sink, nil)
	if err != nil {
		return err
	}
	if err := cehttp.WriteRequest(ctx, binding.ToMessage(event), request); err != nil {
		return err
	}
	response, err := s.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("the sink answers %d", response.StatusCode)
	}
	return nil
}

// wrapped is the event that Knative makes of a record that is none itself.
func wrapped(record *sarama.ConsumerMessage) *cloudevents.Event {
	event := cloudevents.NewEvent()
	event.SetID(fmt.Sprintf("partition:%d/offset:%d", record.Partition, record.Offset))
	event.SetTime(record.Timestamp)
	event.SetType("dev.knative.kafka.event")
	event.SetSource("/apis/v1/namespaces/default/kafkasources/bench#" + record.Topic)
	event.SetSubject(fmt.Sprintf("partition:%d#%d", record.Partition, record.Offset))
	if len(record.Key) > 0 {
		event.SetExtension("key", string(record.Key))
	}
	event.DataEncoded = record.Value
	return &event
}
