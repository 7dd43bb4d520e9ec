// Command extproc is Inlet's chain behind Envoy's ext_proc: the same filters on the same core code, in a separate process
// that Envoy calls over gRPC. It is for comparison only, not a product: filters that call other services get an error.
//
// Configure Envoy to send it request headers, request bodies BUFFERED, response headers with the attribute
// upstream.address, and response bodies STREAMED.
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"google.golang.org/grpc"

	"github.com/inlet-proxy/inlet/filters"
	"github.com/inlet-proxy/inlet/internal/chain"
	"github.com/inlet-proxy/inlet/shared/contract/filter"
	"github.com/inlet-proxy/inlet/shared/state/endpoint"
	"github.com/inlet-proxy/inlet/shared/state/kv/mem"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "address to listen on")
	config := flag.String("config", "", "file with the chain's configuration")
	companion := flag.String("companion", "", "ip:port of the companion")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *listen, *config, *companion); err != nil {
		fmt.Fprintln(os.Stderr, "extproc:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, listen, config, companion string) error {
	document, err := os.ReadFile(config)
	if err != nil {
		return err
	}
	s, err := newServer(document)
	if err != nil {
		return err
	}
	if companion != "" {
		go s.follow(ctx, companion)
	}
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	g := grpc.NewServer(grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage))
	extprocv3.RegisterExternalProcessorServer(g, s)
	go func() {
		<-ctx.Done()
		g.Stop()
	}()
	fmt.Println("listening on", l.Addr())
	return g.Serve(l)
}

// maxMessage is the size limit of one gRPC message, which contains a whole request body.
const maxMessage = 64 << 20

// server is the state that all exchanges share.
type server struct {
	extprocv3.UnimplementedExternalProcessorServer
	chain     *chain.Chain
	counters  *counters
	exchanges sync.Pool // of *exchange
	worker    string    // identifies this process to the companion
	snapshots snapshots
}

// newServer makes the only configuration of this process, so nothing is kept beyond it (filter.Deps.Keep).
func newServer(document []byte) (*server, error) {
	s := &server{counters: newCounters(), worker: strconv.FormatUint(rand.Uint64(), 16)}
	s.snapshots.counters = mem.NewCounters()
	var err error
	s.chain, err = chain.New(document, filters.All, &filter.Deps{
		Now:      time.Now,
		Rand:     rand.Uint64,
		Store:    mem.NewStore(),
		Counters: s.snapshots.counters,
		Snapshot: func() *endpoint.Snapshot { return s.snapshots.latest.Load() },
		Metrics:  s.counters,
		NewMutex: func() filter.Mutex { return new(sync.Mutex) },
		Log:      func(_ filter.Level, message string) { fmt.Fprintln(os.Stderr, message) },
	})
	s.exchanges.New = func() any { return &exchange{chain: s.chain.NewStream()} }
	return s, err
}
