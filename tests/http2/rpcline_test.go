package http2

import (
	"context"
	"encoding/json"
	"io"
	"strings"
	"sync"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
)

// rpcLine is what an endpoint logged of one call. What it does not know is absent; of a size that is -1. Times are
// milliseconds since 1970.
type rpcLine struct {
	Method    string  `json:"method"` // package.Service/Method
	Code      int     `json:"code"`
	Message   string  `json:"message,omitempty"`
	RequestID string  `json:"request_id,omitempty"`
	Agent     string  `json:"agent,omitempty"`
	Sent      int64   `json:"sent"` // bytes of the messages and what gRPC puts before each
	Received  int64   `json:"received"`
	Begun     float64 `json:"begun"`
	Ended     float64 `json:"ended"`
	Local     string  `json:"local,omitempty"`
	Peer      string  `json:"peer,omitempty"`
}

// rpcLog logs each call of a client or server of grpc-go.
type rpcLog struct {
	mu    sync.Mutex
	lines *json.Encoder
}

func newRPCLog(w io.Writer) *rpcLog { return &rpcLog{lines: json.NewEncoder(w)} }

type rpcKey struct{}

func (l *rpcLog) TagRPC(ctx context.Context, info *stats.RPCTagInfo) context.Context {
	line := &rpcLine{Method: strings.TrimPrefix(info.FullMethodName, "/")}
	if sent, ok := metadata.FromOutgoingContext(ctx); ok {
		line.RequestID = strings.Join(sent.Get("x-request-id"), "")
	}
	return context.WithValue(ctx, rpcKey{}, line)
}

// HandleRPC is called by one goroutine of the call's at a time, or by two of which one sends and one receives.
func (l *rpcLog) HandleRPC(ctx context.Context, s stats.RPCStats) {
	line := ctx.Value(rpcKey{}).(*rpcLine)
	l.mu.Lock()
	defer l.mu.Unlock()
	switch s := s.(type) {
	case *stats.Begin:
		line.Begun = millis()
	case *stats.OutHeader:
		if s.Client {
			line.Local, line.Peer = s.LocalAddr.String(), s.RemoteAddr.String()
		}
	case *stats.InHeader:
		if !s.Client {
			line.Local, line.Peer = s.LocalAddr.String(), s.RemoteAddr.String()
			line.RequestID = strings.Join(s.Header.Get("x-request-id"), "")
			line.Agent = strings.Join(s.Header.Get("user-agent"), "")
		}
	case *stats.OutPayload:
		line.Sent += int64(s.WireLength)
	case *stats.InPayload:
		line.Received += int64(s.WireLength)
	case *stats.End:
		st, _ := status.FromError(s.Error) // what is no status is UNKNOWN
		line.Code, line.Message, line.Ended = int(st.Code()), st.Message(), millis()
		_ = l.lines.Encode(line) // a test that misses it fails
	}
}

func (l *rpcLog) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

func (l *rpcLog) HandleConn(context.Context, stats.ConnStats) {}
