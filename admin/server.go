package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/net/netutil"
)

// MaxTraces is how many traces one answer lists at the most.
const MaxTraces = 1000

// Limits of the server. They bound what callers can make it hold.
const (
	maxConnections = 64       // on each listener
	maxHeader      = 16 << 10 // bytes
	maxBody        = 4 << 10  // bytes of a request
	maxWidth       = 1000     // columns of a waterfall
	readTimeout    = 10 * time.Second
	writeTimeout   = 30 * time.Second
	socketTimeout  = 2 * time.Minute // of an answer on the socket: profiles take their time
	idleTimeout    = time.Minute
	changeTimeout  = time.Minute // of pause, resume and rates
)

// Config says where to listen.
type Config struct {
	// Address is ADDRESS:PORT for reads by TCP; empty opens no port.
	Address string
	// Socket is the absolute path of the unix socket.
	Socket string
	// Collectors add to the metrics that are made from Status.
	Collectors []prometheus.Collector
	Log        *slog.Logger
}

// Server is the API while it is served. Close ends it.
type Server struct {
	log    *slog.Logger
	tcp    net.Listener // nil: none
	socket *socket
	http   []*http.Server
	served sync.WaitGroup
}

// Listen opens the listeners and serves them. Errors name the address or the socket, and what to do.
func Listen(cfg Config, backend Backend) (*Server, error) {
	metrics, err := metricsHandler(backend, cfg.Collectors)
	if err != nil {
		return nil, err
	}
	s := &Server{log: cfg.Log}
	if s.socket, err = listenSocket(cfg.Socket); err != nil {
		return nil, err
	}
	if cfg.Address != "" {
		if s.tcp, err = listenTCP(cfg.Address); err != nil {
			return nil, errors.Join(err, s.socket.Close(), s.socket.remove())
		}
		s.serve(s.tcp, publicRoutes(backend, metrics), writeTimeout)
	}
	s.serve(s.socket, socketRoutes(backend, metrics), socketTimeout)
	return s, nil
}

func listenTCP(address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	var number syscall.Errno
	switch {
	case err == nil:
		return l, nil
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("admin address %s: in use: stop who listens there, or choose another with --admin", address)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("admin address %s: this machine has no such address: choose another with --admin", address)
	case errors.As(err, &number):
		err = number
	}
	return nil, fmt.Errorf("admin address %s: listen: %w", address, err)
}

func (s *Server) serve(l net.Listener, handler http.Handler, write time.Duration) {
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: readTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      write,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
	s.http = append(s.http, server)
	s.served.Go(func() {
		if err := server.Serve(netutil.LimitListener(l, maxConnections)); !errors.Is(err, http.ErrServerClosed) {
			s.log.Error("admin listener ended", "address", l.Addr().String(), "error", err)
		}
	})
}

// Addr is the TCP address that is listened on, nil where none is.
func (s *Server) Addr() net.Addr {
	if s.tcp == nil {
		return nil
	}
	return s.tcp.Addr()
}

// Retire frees the path of the socket for another daemon. Probes by TCP are answered on, and the request that is being
// answered ends.
func (s *Server) Retire() error { return s.socket.remove() }

// Close lets requests that are being answered end, as long as ctx allows, and removes the socket.
func (s *Server) Close(ctx context.Context) error {
	err := s.socket.remove()
	for _, server := range s.http {
		if server.Shutdown(ctx) != nil {
			err = errors.Join(err, server.Close())
		}
	}
	s.served.Wait()
	return err
}
