package peers

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/inlet-proxy/inlet/e2e/process"
	"github.com/inlet-proxy/inlet/e2e/redisbin"
)

// Ratelimit is the rate limit service that Envoy's ratelimit filter calls, as published, with its counters in a real Redis.
type Ratelimit struct {
	// Address is its ip:port for gRPC.
	Address string
	dir     string
	redis   *redisbin.Server
	client  *redis.Client
	process *process.Process
}

// StartRatelimit builds the service if need be, and starts it with a configuration in its own format. Apart from addresses
// it has its defaults, without the metrics that it would send to a statsd.
func StartRatelimit(ctx context.Context, root, config string, progress io.Writer) (_ *Ratelimit, err error) {
	built, err := ratelimit.build(ctx, root, progress)
	if err != nil {
		return nil, err
	}
	r := &Ratelimit{}
	if r.dir, err = os.MkdirTemp("", "inlet-ratelimit-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			text, _ := os.ReadFile(r.log())
			err = fmt.Errorf("%w\n%s", err, text)
			r.Close()
		}
	}()
	if r.redis, err = redisbin.Start(ctx, r.dir); err != nil {
		return nil, err
	}
	r.client = redis.NewClient(&redis.Options{Addr: r.redis.Address()})
	return r, r.serve(ctx, filepath.Join(built, program(ratelimit.packages[0])), config)
}

func (r *Ratelimit) log() string { return filepath.Join(r.dir, "ratelimit.log") }

// serve starts the service and waits until it has read its configuration.
func (r *Ratelimit) serve(ctx context.Context, path, config string) error {
	folder := filepath.Join(r.dir, "runtime", "bench", "config")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(folder, "bench.yaml"), []byte(config), 0o644); err != nil {
		return err
	}
	ports, err := freePorts(3)
	if err != nil {
		return err
	}
	r.Address = fmt.Sprintf("127.0.0.1:%d", ports[0])
	r.process, err = process.Start(ctx, process.Command{
		Name: "ratelimit", Path: path, Dir: r.dir, Log: r.log(),
		Env: []string{
			"HOST=127.0.0.1", "GRPC_HOST=127.0.0.1", "DEBUG_HOST=127.0.0.1",
			"GRPC_PORT=" + strconv.Itoa(ports[0]), "PORT=" + strconv.Itoa(ports[1]), "DEBUG_PORT=" + strconv.Itoa(ports[2]),
			"RUNTIME_ROOT=" + filepath.Join(r.dir, "runtime"), "RUNTIME_SUBDIRECTORY=bench", "RUNTIME_WATCH_ROOT=false",
			"REDIS_SOCKET_TYPE=tcp", "REDIS_URL=" + r.redis.Address(), "USE_STATSD=false",
			"HEALTHY_WITH_AT_LEAST_ONE_CONFIG_LOADED=true",
		},
	})
	if err != nil {
		return err
	}
	return r.process.Until(ctx, time.Minute, "healthy", func() bool {
		resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/healthcheck", ports[1]))
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}

// PIDs are the service's process id and that of its Redis.
func (r *Ratelimit) PIDs() []int { return []int{r.process.PID(), r.redis.Process().PID()} }

// Counted is the sum of the counters in Redis whose names match a pattern.
func (r *Ratelimit) Counted(ctx context.Context, pattern string) (sum int64, err error) {
	names, err := r.client.Keys(ctx, pattern).Result()
	if err != nil {
		return 0, err
	}
	for _, name := range names {
		n, err := r.client.Get(ctx, name).Int64()
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// Close ends both programs.
func (r *Ratelimit) Close() {
	if r.process != nil {
		r.process.Stop(5 * time.Second)
	}
	if r.client != nil {
		_ = r.client.Close()
	}
	if r.redis != nil {
		r.redis.Stop()
	}
	_ = os.RemoveAll(r.dir)
}
