package stack

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/inlet-proxy/inlet/e2e/process"
)

// Replica is one simulated model server.
type Replica struct {
	process.Server
	// Name is <pool>-<number>, as in x-modelsim-replica.
	Name string
	// Pool is the pool's name.
	Pool string
}

// Companion is the running companion.
type Companion struct{ process.Server }

// PoolReplicas returns the replicas of a pool.
func (s *Stack) PoolReplicas(pool string) []*Replica {
	var found []*Replica
	for _, r := range s.Replicas {
		if r.Pool == pool {
			found = append(found, r)
		}
	}
	return found
}

func (s *Stack) startReplicas(ctx context.Context) error {
	for _, pool := range s.o.Pools {
		for i := range pool.Replicas {
			r := &Replica{Name: fmt.Sprintf("%s-%d", pool.Name, i+1), Pool: pool.Name}
			r.Server = process.Server{
				Command: process.Command{
					Name: r.Name,
					Path: ModelSim.Path(s.Root),
					Dir:  s.Root,
					Log:  filepath.Join(s.Dir, r.Name+".log"),
				},
				Arguments: func(address string) ([]string, error) {
					return append([]string{"--name", r.Name, "--listen", address, "--drain", "1s"}, pool.Args...), nil
				},
			}
			s.Replicas = append(s.Replicas, r)
			if err := r.Start(ctx); err != nil {
				return err
			}
		}
	}
	for _, pool := range s.o.Pools {
		if err := s.SetEndpoints(pool.Name, append(addresses(s.PoolReplicas(pool.Name)), pool.Addresses...)...); err != nil {
			return err
		}
	}
	return nil
}

func addresses(replicas []*Replica) []string {
	var all []string
	for _, r := range replicas {
		all = append(all, r.Address())
	}
	return all
}

// endpointFile is the pool's list of replicas, which Envoy and the companion both read.
func (s *Stack) endpointFile(pool string) string { return filepath.Join(s.lists, pool+".json") }

// SetEndpoints replaces a pool's list of replicas as an operator would: it writes a
// new file and renames it over the old one.
func (s *Stack) SetEndpoints(pool string, addresses ...string) error {
	return s.SetDraining(pool, nil, addresses...)
}

// SetDraining is SetEndpoints with some of the addresses marked as draining.
func (s *Stack) SetDraining(pool string, draining []string, addresses ...string) error {
	return s.SetHealth(pool, "DRAINING", draining, addresses...)
}

// SetHealth is SetEndpoints with some of the addresses marked as having a health status, such as UNHEALTHY.
func (s *Stack) SetHealth(pool, status string, having []string, addresses ...string) error {
	endpoints := []any{}
	for _, address := range addresses {
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			return err
		}
		number, err := strconv.Atoi(port)
		if err != nil {
			return err
		}
		e := object{"endpoint": object{"address": object{
			"socket_address": object{"address": host, "port_value": number},
		}}}
		if slices.Contains(having, address) {
			e["health_status"] = status
		}
		endpoints = append(endpoints, e)
	}
	return writeJSON(s.endpointFile(pool), object{"resources": []any{object{
		"@type":        "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
		"cluster_name": pool,
		"endpoints":    []any{object{"lb_endpoints": endpoints}},
	}}})
}

func (s *Stack) startCompanion(ctx context.Context) error {
	if s.o.NoCompanion || s.o.Embedded {
		return nil
	}
	file := filepath.Join(s.Dir, "companion.json")
	s.Companion = &Companion{process.Server{
		Command: process.Command{
			Name: "companion",
			Path: CompanionProgram.Path(s.Root),
			Dir:  s.Root,
			Log:  filepath.Join(s.Dir, "companion.log"),
		},
		Arguments: func(address string) ([]string, error) {
			quota, err := s.quotaSettings()
			if err != nil {
				return nil, err
			}
			config := s.scraping()
			config["listen"], config["quota"] = address, quota
			return []string{"--config", file}, writeJSON(file, config)
		},
	}}
	return s.Companion.Start(ctx)
}

// scraping is what a companion is told about the replicas, wherever it runs.
func (s *Stack) scraping() object {
	pools := []any{}
	for _, p := range s.o.Pools {
		pools = append(pools, object{"name": p.Name, "eds": s.endpointFile(p.Name), "engine": "vllm"})
	}
	return object{"scrape": object{"interval": s.o.Scrape.String()}, "pools": pools}
}

type object = map[string]any

// writeJSON replaces a file by rename, so that no reader sees half of it.
func writeJSON(file string, v any) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return err
	}
	// The temporary file is in another folder: Envoy watches this one.
	temp := filepath.Join(filepath.Dir(filepath.Dir(file)), "."+filepath.Base(file)+".new")
	if err := os.WriteFile(temp, append(b, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(temp, file)
}
