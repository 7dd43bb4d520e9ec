package redisbin

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/inlet-proxy/inlet/e2e/process"
)

// Server is a redis-server on a port of its own on loopback. It can be killed and started again at the same address.
type Server struct {
	binary  Binary
	dir     string
	args    []string
	port    int
	process *process.Process
}

// Start starts a server with its data and its log in dir. args are further settings, such as "--appendonly", "yes". It ends with ctx, and at
// the latest with this process.
func Start(ctx context.Context, dir string, args ...string) (*Server, error) {
	binary, err := Find(ctx, nil)
	if err != nil {
		return nil, err
	}
	s := &Server{binary: binary, dir: dir, args: args}
	for try := 0; ; try++ {
		if s.port, err = process.FreePort(); err != nil {
			return nil, err
		}
		// Redis takes no port 0 for "any", so another program may have taken this one meanwhile.
		if err = s.Restart(ctx); err == nil || try == 5 {
			return s, err
		}
	}
}

// Restart starts the server again after Kill or Stop, at the address that it had and with the data that it saved.
func (s *Server) Restart(ctx context.Context) error {
	args := []string{
		"--port", strconv.Itoa(s.port), "--bind", "127.0.0.1", "--dir", s.dir, "--save", "", "--daemonize", "no", "--maxmemory-policy", "noeviction",
	}
	var err error
	s.process, err = process.Start(ctx, process.Command{
		Name: "redis-server", Path: s.binary.Path, Args: append(args, s.args...), Env: s.binary.Env, Dir: s.dir, Log: filepath.Join(s.dir, "redis.log"),
	})
	if err != nil {
		return err
	}
	client := redis.NewClient(&redis.Options{Addr: s.Address(), MaxRetries: -1, DialerRetries: 1})
	defer client.Close() //nolint:errcheck // it only asked whether the server is there
	return s.process.Until(ctx, 10*time.Second, "answering", func() bool {
		err := client.Ping(ctx).Err()
		return err == nil || strings.HasPrefix(err.Error(), "NOAUTH")
	})
}

// Address is the server's ip:port.
func (s *Server) Address() string { return "127.0.0.1:" + strconv.Itoa(s.port) }

// Process is the running server, to be paused or measured.
func (s *Server) Process() *process.Process { return s.process }

// Kill ends the server at once: what it had not saved is lost.
func (s *Server) Kill() { s.process.Kill() }

// Stop ends the server in order.
func (s *Server) Stop() { s.process.Stop(2 * time.Second) }

// Cluster is a Redis Cluster of masters without replicas, which share the slots evenly.
type Cluster []*Server

// StartCluster starts a cluster of n servers with their data in folders of dir, and returns when it serves every slot.
func StartCluster(ctx context.Context, n int, dirs func() string) (Cluster, error) {
	var c Cluster
	for range n {
		s, err := Start(ctx, dirs(), "--cluster-enabled", "yes", "--cluster-node-timeout", "2000")
		if err != nil {
			c.Stop()
			return nil, err
		}
		c = append(c, s)
	}
	if err := c.join(ctx); err != nil {
		c.Stop()
		return nil, err
	}
	return c, nil
}

const slots = 16384

func (c Cluster) join(ctx context.Context) error {
	for i, s := range c {
		client := redis.NewClient(&redis.Options{Addr: s.Address()})
		defer client.Close() //nolint:errcheck // of a test's server
		err := client.ClusterAddSlotsRange(ctx, i*slots/len(c), (i+1)*slots/len(c)-1).Err()
		if i > 0 {
			err = errors.Join(err, client.ClusterMeet(ctx, "127.0.0.1", strconv.Itoa(c[0].port)).Err())
		}
		if err != nil {
			return fmt.Errorf("joining the cluster: %w", err)
		}
	}
	for _, s := range c {
		client := redis.NewClient(&redis.Options{Addr: s.Address()})
		defer client.Close() //nolint:errcheck // of a test's server
		err := s.process.Until(ctx, 20*time.Second, "a part of the cluster", func() bool {
			info, err := client.ClusterInfo(ctx).Result()
			return err == nil && strings.Contains(info, "cluster_state:ok") && strings.Contains(info, fmt.Sprintf("cluster_known_nodes:%d", len(c)))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Addresses are the servers' addresses.
func (c Cluster) Addresses() []string {
	var all []string
	for _, s := range c {
		all = append(all, s.Address())
	}
	return all
}

// Stop ends all servers.
func (c Cluster) Stop() {
	for _, s := range c {
		s.Stop()
	}
}
