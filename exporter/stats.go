package exporter

import "time"

// DropReason is why a span was lost. Its text is fit for a label.
type DropReason uint8

const (
	// DropQueueFull means that the queue had no room: the collector is away or slower than the spans come.
	DropQueueFull DropReason = iota
	// DropQueuePressed means that the queue was nearly full, and the span below the threshold that was raised for that.
	DropQueuePressed
	// DropTooLarge means that the span and its resource do not fit a batch of their own.
	DropTooLarge
	// DropRejected means that the collector took the batch without this span (partial success).
	DropRejected
	// DropRefused means that the collector refused the whole batch for good.
	DropRefused
	// DropExpired means that the batch was tried for longer than OTLPConfig.RetryFor.
	DropExpired
	// DropShutdown means that the span came after Close, or was not delivered by its deadline.
	DropShutdown

	// DropReasons is how many there are.
	DropReasons int = iota

	dropNone DropReason = 255
)

var dropReasons = [DropReasons]string{"queue_full", "queue_pressed", "too_large", "rejected", "refused", "expired", "shutdown"}

func (r DropReason) String() string {
	return dropReasons[r]
}

// Stats is the exporter at one moment. Always
//
//	Added = Exported + DroppedTotal() + Queued
type Stats struct {
	Endpoint string // as a URL, or gRPC's name for it
	Protocol string // "grpc" or "http/protobuf"

	Added    uint64 // spans handed to Add
	Exported uint64 // of them, those that the collector took
	Dropped  [DropReasons]uint64
	Queued   int // spans that wait or are on their way
	InFlight int // of them, those on their way

	QueuedBytes   int // encoded, of Queued
	CapacityBytes int // of the queue; a batch on its way comes on top

	Batches uint64 // that ended, whichever way
	Retries uint64 // attempts after the first of a batch
	// Repaired counts strings that were not UTF-8 when they came here.
	Repaired uint64

	// FailingSince is when the first attempt failed of those that failed until now; zero while all is well.
	FailingSince time.Time
	// LastError is one line of at most maxErrorText bytes without control characters, "" if there never was one.
	LastError   string
	LastErrorAt time.Time
}

// DroppedTotal is the number of spans lost, for whatever reason.
func (s *Stats) DroppedTotal() uint64 {
	var n uint64
	for _, v := range s.Dropped {
		n += v
	}
	return n
}
