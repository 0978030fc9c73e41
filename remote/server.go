package remote

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gogo/protobuf/jsonpb"
	"github.com/jaegertracing/jaeger-idl/proto-gen/api_v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Lookup gives the strategy of a service; false where the service is not known.
type Lookup func(service string) (Strategy, bool)

// Server answers SDKs, over HTTP and gRPC on one port. It shows the names of services and routes to whoever reaches it, and
// takes nothing.
type Server struct {
	lookup   Lookup
	http     *http.Server
	grpc     *grpc.Server
	listener net.Listener
	asked    atomic.Uint64
	unknown  atomic.Uint64
}

const (
	maxHeader = 16 << 10
	maxName   = 256 // of a service
)

// Listen opens the port and answers until Close.
func Listen(address string, lookup Lookup, log *slog.Logger) (*Server, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("serve sampling strategies on %s: %w", address, err)
	}
	s := &Server{lookup: lookup, listener: listener, grpc: grpc.NewServer(grpc.MaxRecvMsgSize(maxHeader))}
	api_v2.RegisterSamplingManagerServer(s.grpc, manager{s})
	mux := http.NewServeMux()
	mux.HandleFunc("GET /sampling", s.sampling)
	mux.HandleFunc("GET /api/sampling", s.sampling) // of Jaeger's collector
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	s.http = &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("content-type"), "application/grpc") {
				s.grpc.ServeHTTP(w, r)
				return
			}
			mux.ServeHTTP(w, r)
		}),
		Protocols: protocols, MaxHeaderBytes: maxHeader,
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	go func() {
		if err := s.http.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			log.Error("sampling strategies are served no more; restart ambit", "address", address, "error", err)
		}
	}()
	return s, nil
}

// Address is where it listens.
func (s *Server) Address() string { return s.listener.Addr().String() }

// Asked is how many questions were answered, and how many of them were for services that are not known.
func (s *Server) Asked() (all, unknown uint64) { return s.asked.Load(), s.unknown.Load() }

// Close ends it; ctx bounds the wait for answers that are under way.
func (s *Server) Close(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	s.grpc.Stop()
	if err != nil {
		err = errors.Join(fmt.Errorf("end serving sampling strategies: %w", err), s.http.Close())
	}
	return err
}

// strategy answers a question; its error is gRPC's.
func (s *Server) strategy(service string) (*api_v2.SamplingStrategyResponse, error) {
	s.asked.Add(1)
	if service == "" || len(service) > maxName {
		return nil, status.Errorf(codes.InvalidArgument, "give the name of one service, of at most %d bytes", maxName)
	}
	found, ok := s.lookup(service)
	if !ok {
		s.unknown.Add(1)
		return nil, status.Errorf(codes.NotFound, "no service of this name is known here")
	}
	return found.response(), nil
}

func (s *Server) sampling(w http.ResponseWriter, r *http.Request) {
	answer, err := s.strategy(r.URL.Query().Get("service"))
	switch status.Code(err) {
	case codes.OK:
	case codes.InvalidArgument:
		http.Error(w, status.Convert(err).Message(), http.StatusBadRequest)
		return
	default:
		http.Error(w, status.Convert(err).Message(), http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = (&jsonpb.Marshaler{EmitDefaults: true}).Marshal(w, answer) // the caller may be gone
}

// manager is the service of gRPC.
type manager struct{ s *Server }

func (m manager) GetSamplingStrategy(_ context.Context, p *api_v2.SamplingStrategyParameters) (*api_v2.SamplingStrategyResponse, error) {
	return m.s.strategy(p.GetServiceName())
}
