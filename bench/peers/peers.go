package peers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/inlet-proxy/inlet/e2e/process"
)

// pickerConfig is the configuration of the extension's charts (epplib, default-plugins.yaml).
const pickerConfig = `apiVersion: inference.networking.x-k8s.io/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: queue-scorer
- type: kv-cache-utilization-scorer
- type: prefix-cache-scorer
schedulingProfiles:
- name: default
  plugins:
  - pluginRef: queue-scorer
    weight: 2
  - pluginRef: kv-cache-utilization-scorer
    weight: 2
  - pluginRef: prefix-cache-scorer
    weight: 3
`

// Peers are the running programs.
type Peers struct {
	cluster  *cluster
	programs programs
	dir      string
}

// Server is one of them, which serves ext_proc over TLS with a self-signed certificate.
type Server struct {
	// Address is its ip:port.
	Address string
	process *process.Process
}

// PID is the process id, for measurements.
func (s *Server) PID() int { return s.process.PID() }

// Stop ends it.
func (s *Server) Stop() { s.process.Stop(5 * time.Second) }

// Start builds what is not built yet and starts a Kubernetes API.
func Start(ctx context.Context, root string, progress io.Writer) (*Peers, error) {
	p := &Peers{}
	var err error
	if p.programs, err = build(ctx, root, progress); err != nil {
		return nil, err
	}
	if p.dir, err = os.MkdirTemp("", "inlet-peers-"); err != nil {
		return nil, err
	}
	if p.cluster, err = startCluster(ctx, p.programs, p.dir); err != nil {
		err = fmt.Errorf("%w\n%s", err, p.Logs())
		p.Close()
		return nil, err
	}
	return p, nil
}

// PIDs are the process ids of all programs, including those of the Kubernetes API.
func (p *Peers) PIDs() []int {
	var all []int
	for _, started := range p.cluster.processes {
		all = append(all, started.PID())
	}
	return all
}

// Close ends all programs.
func (p *Peers) Close() {
	if p.cluster != nil {
		p.cluster.close()
	}
	_ = os.RemoveAll(p.dir)
}

// Logs is the end of every program's output.
func (p *Peers) Logs() string {
	var all strings.Builder
	files, _ := filepath.Glob(filepath.Join(p.dir, "*.log"))
	for _, file := range files {
		text, _ := os.ReadFile(file)
		fmt.Fprintf(&all, "--- %s\n%s\n", filepath.Base(file), text[max(0, len(text)-2000):])
	}
	return all.String()
}

// Picker starts an endpoint picker for the replicas at the given addresses, which are all on one port.
func (p *Peers) Picker(ctx context.Context, pool string, addresses []string) (*Server, error) {
	var ips []string
	port := uint16(0)
	for _, address := range addresses {
		at, err := netip.ParseAddrPort(address)
		if err != nil {
			return nil, err
		}
		if port != 0 && at.Port() != port {
			return nil, errors.New("the replicas of a pool are all on one port")
		}
		port = at.Port()
		ips = append(ips, at.Addr().String())
	}
	if err := p.cluster.addPool(ctx, pool, ips, int(port)); err != nil {
		return nil, err
	}
	config := filepath.Join(p.dir, pool+".yaml")
	if err := os.WriteFile(config, []byte(pickerConfig), 0o644); err != nil {
		return nil, err
	}
	return p.serve(ctx, pool+"-epp", p.programs.epp, "--pool-name", pool, "--pool-namespace", "default", "--zap-encoder", "json",
		"--config-file", config, "--v", "1", "--tracing=false", "--metrics-endpoint-auth=false")
}

// Router starts a body-based router. This version refuses the chart's own value of --plugin.
func (p *Peers) Router(ctx context.Context) (*Server, error) {
	return p.serve(ctx, "bbr", p.programs.bbr, "--streaming", "--v", "3", "--metrics-endpoint-auth=false")
}

// serve starts a program with its own ports, and waits until it listens.
func (p *Peers) serve(ctx context.Context, name, path string, args ...string) (*Server, error) {
	ports, err := freePorts(3)
	if err != nil {
		return nil, err
	}
	args = append(args, "--grpc-port", strconv.Itoa(ports[0]), "--grpc-health-port", strconv.Itoa(ports[1]), "--metrics-port", strconv.Itoa(ports[2]))
	s := &Server{Address: fmt.Sprintf("127.0.0.1:%d", ports[0])}
	if s.process, err = p.cluster.start(ctx, name, path, args...); err != nil {
		return nil, err
	}
	err = s.process.Until(ctx, time.Minute, "listening", func() bool {
		conn, err := net.DialTimeout("tcp", s.Address, time.Second)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, p.Logs())
	}
	return s, nil
}
