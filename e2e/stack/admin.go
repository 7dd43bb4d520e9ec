package stack

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
)

var adminClient = &http.Client{Timeout: 5 * time.Second}

// get is a GET on Envoy's admin interface. Any status but 200 is an error.
func (s *Stack) get(ctx context.Context, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.AdminURL()+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := adminClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("admin %s: %s", path, resp.Status)
	}
	return body, nil
}

// listenerAddress asks Envoy for the address of a listener, the first one if name is "".
func (s *Stack) listenerAddress(ctx context.Context, name string) (string, error) {
	body, err := s.get(ctx, "/listeners?format=json")
	if err != nil {
		return "", err
	}
	var answer struct {
		Listeners []struct {
			Name  string `json:"name"`
			Local struct {
				Socket struct {
					Address string `json:"address"`
					Port    int    `json:"port_value"`
				} `json:"socket_address"`
			} `json:"local_address"`
		} `json:"listener_statuses"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return "", err
	}
	for _, l := range answer.Listeners {
		if a := l.Local.Socket; a.Port != 0 && (name == "" || name == l.Name) {
			return fmt.Sprintf("%s:%d", a.Address, a.Port), nil
		}
	}
	return "", fmt.Errorf("envoy has no such listener yet: %s", body)
}

// ListenerURL is the base URL of a listener that Options.Edit added.
func (s *Stack) ListenerURL(ctx context.Context, name string) (string, error) {
	address, err := s.listenerAddress(ctx, s.shared.name(name))
	return "http://" + address, err
}

// Hosts returns the statistics of each host of a cluster, by address: rq_active,
// rq_total, cx_connect_fail and so on.
func (s *Stack) Hosts(ctx context.Context, cluster string) (map[string]map[string]int, error) {
	body, err := s.get(ctx, "/clusters?format=json")
	if err != nil {
		return nil, err
	}
	var answer struct {
		Clusters []struct {
			Name  string `json:"name"`
			Hosts []struct {
				Address struct {
					Socket struct {
						Address string `json:"address"`
						Port    int    `json:"port_value"`
					} `json:"socket_address"`
				} `json:"address"`
				Stats []struct {
					Name  string `json:"name"`
					Value int    `json:"value,string"`
				} `json:"stats"`
			} `json:"host_statuses"`
		} `json:"cluster_statuses"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, err
	}
	hosts := map[string]map[string]int{}
	for _, c := range answer.Clusters {
		for _, h := range c.Hosts {
			if c.Name != cluster {
				continue
			}
			figures := map[string]int{}
			for _, stat := range h.Stats {
				figures[stat.Name] = stat.Value
			}
			hosts[fmt.Sprintf("%s:%d", h.Address.Socket.Address, h.Address.Socket.Port)] = figures
		}
	}
	return hosts, nil
}

// Metrics is one scrape of Envoy.
type Metrics []Sample

// Sample is one line of a scrape. A histogram is <name>_count, <name>_sum and <name>_bucket.
type Sample struct {
	Name   string
	Labels map[string]string
	Value  float64
}

// Metrics scrapes Envoy as Prometheus would: Inlet's own metrics are called
// inlet_..., Envoy's envoy_....
func (s *Stack) Metrics(ctx context.Context) (Metrics, error) {
	body, err := s.get(ctx, "/stats/prometheus")
	if err != nil {
		return nil, err
	}
	return ParseMetrics(string(body))
}

// ParseMetrics reads a page in Prometheus' text format.
func ParseMetrics(page string) (Metrics, error) {
	var samples Metrics
	for line := range strings.Lines(page) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		sample, err := parseSample(line)
		if err != nil {
			return nil, err
		}
		samples = append(samples, sample)
	}
	return samples, nil
}

// Sum adds up the samples of a metric whose labels have the given values:
// Sum("inlet_request_total", "pool", "llama"). A missing metric is 0.
func (m Metrics) Sum(name string, labels ...string) float64 {
	var sum float64
	for _, sample := range m {
		if sample.Name == name && sample.has(labels) {
			sum += sample.Value
		}
	}
	return sum
}

func (s Sample) has(labels []string) bool {
	for i := 0; i+1 < len(labels); i += 2 {
		if s.Labels[labels[i]] != labels[i+1] {
			return false
		}
	}
	return true
}

var (
	sampleLine  = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$`)
	sampleLabel = regexp.MustCompile(`([a-zA-Z_][a-zA-Z0-9_]*)=("(?:[^"\\]|\\.)*")`)
)

// parseSample parses one line of Prometheus' text format as Envoy and vLLM write it: without a timestamp.
func parseSample(line string) (Sample, error) {
	m := sampleLine.FindStringSubmatch(line)
	if m == nil {
		return Sample{}, fmt.Errorf("not a sample: %q", line)
	}
	value, err := strconv.ParseFloat(m[3], 64)
	if err != nil {
		return Sample{}, fmt.Errorf("not a sample: %q: %w", line, err)
	}
	s := Sample{Name: m[1], Labels: map[string]string{}, Value: value}
	for _, l := range sampleLabel.FindAllStringSubmatch(m[2], -1) {
		if s.Labels[l[1]], err = strconv.Unquote(l[2]); err != nil {
			return Sample{}, fmt.Errorf("not a label: %q: %w", line, err)
		}
	}
	return s, nil
}
