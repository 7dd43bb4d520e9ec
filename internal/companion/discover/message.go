package discover

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// The messages of an EDS file, with all fields that Envoy has in them. Those that nobody here needs are not looked into. Envoy's Go types would
// bring the whole of its API into the module that runs inside Envoy.
type (
	response struct {
		Resources []assignment `json:"resources"`

		VersionInfo    json.RawMessage `json:"version_info"`
		Canary         json.RawMessage `json:"canary"`
		TypeURL        json.RawMessage `json:"type_url"`
		Nonce          json.RawMessage `json:"nonce"`
		ControlPlane   json.RawMessage `json:"control_plane"`
		ResourceErrors json.RawMessage `json:"resource_errors"`
	}
	assignment struct {
		Type        string     `json:"@type"`
		ClusterName string     `json:"cluster_name"`
		Endpoints   []locality `json:"endpoints"`

		NamedEndpoints json.RawMessage `json:"named_endpoints"`
		Policy         json.RawMessage `json:"policy"`
	}
	locality struct {
		LbEndpoints []lbEndpoint `json:"lb_endpoints"`
		Priority    number       `json:"priority"`

		Locality            json.RawMessage `json:"locality"`
		Metadata            json.RawMessage `json:"metadata"`
		LoadBalancerList    json.RawMessage `json:"load_balancer_endpoints"`
		LedsConfig          json.RawMessage `json:"leds_cluster_locality_config"`
		LoadBalancingWeight json.RawMessage `json:"load_balancing_weight"`
		Proximity           json.RawMessage `json:"proximity"`
	}
	lbEndpoint struct {
		Endpoint struct {
			Address address `json:"address"`

			HealthCheckConfig   json.RawMessage `json:"health_check_config"`
			Hostname            json.RawMessage `json:"hostname"`
			AdditionalAddresses json.RawMessage `json:"additional_addresses"`
			ObservabilityName   json.RawMessage `json:"observability_name"`
		} `json:"endpoint"`
		HealthStatus health   `json:"health_status"`
		Metadata     metadata `json:"metadata"`

		EndpointName        json.RawMessage `json:"endpoint_name"`
		LoadBalancingWeight json.RawMessage `json:"load_balancing_weight"`
	}
	address struct {
		Socket *struct {
			Address   string `json:"address"`
			PortValue number `json:"port_value"`

			Protocol     json.RawMessage `json:"protocol"`
			NamedPort    json.RawMessage `json:"named_port"`
			ResolverName json.RawMessage `json:"resolver_name"`
			IPv4Compat   json.RawMessage `json:"ipv4_compat"`
			Namespace    json.RawMessage `json:"network_namespace_filepath"`
		} `json:"socket_address"`

		Pipe     json.RawMessage `json:"pipe"`
		Internal json.RawMessage `json:"envoy_internal_address"`
	}
	metadata struct {
		Filter map[string]map[string]any `json:"filter_metadata"`
		Typed  json.RawMessage           `json:"typed_filter_metadata"`
	}
)

// label finds a label in an endpoint's metadata, in any namespace; nil if it is not there.
func (m metadata) label(name string) any {
	for _, namespace := range slices.Sorted(maps.Keys(m.Filter)) {
		if value := m.Filter[namespace][name]; value != nil {
			return value
		}
	}
	return nil
}

// readResponse reads a DiscoveryResponse, in YAML, of which JSON is a part. It also returns the error about a field that it does not know, ""
// if there is none.
func readResponse(doc []byte) (r *response, unknown string, err error) {
	var tree any
	if err := yaml.Unmarshal(doc, &tree); err != nil {
		return nil, "", err
	}
	if _, ok := tree.(map[string]any); !ok {
		return nil, "", errors.New("not a DiscoveryResponse: the document is not a mapping")
	}
	if tree, err = underscored(tree); err != nil {
		return nil, "", fmt.Errorf("not a DiscoveryResponse: %w", err)
	}
	text, err := json.Marshal(tree)
	if err != nil {
		return nil, "", fmt.Errorf("not a DiscoveryResponse: %w", err)
	}
	r = new(response)
	strict := json.NewDecoder(bytes.NewReader(text))
	strict.DisallowUnknownFields()
	if err := strict.Decode(r); err != nil {
		unknown = strings.TrimPrefix(err.Error(), "json: ")
		*r = response{}
		if err := json.Unmarshal(text, r); err != nil {
			return nil, "", fmt.Errorf("not a DiscoveryResponse: %w", err)
		}
	}
	return r, unknown, nil
}

// underscored brings the names of fields into one form: protobuf's JSON has lbEndpoints for lb_endpoints, and reads both. Metadata have names
// that are not fields.
func underscored(tree any) (any, error) {
	switch tree := tree.(type) {
	case []any:
		for i := range tree {
			var err error
			if tree[i], err = underscored(tree[i]); err != nil {
				return nil, err
			}
		}
	case map[string]any:
		fields := make(map[string]any, len(tree))
		for name, value := range tree {
			field := underscore(name)
			if _, twice := fields[field]; twice {
				return nil, fmt.Errorf("field %q is there twice", field)
			}
			if field != "filter_metadata" && field != "typed_filter_metadata" {
				var err error
				if value, err = underscored(value); err != nil {
					return nil, err
				}
			}
			fields[field] = value
		}
		return fields, nil
	}
	return tree, nil
}

func underscore(name string) string {
	var b strings.Builder
	for _, c := range name {
		if 'A' <= c && c <= 'Z' {
			b.WriteByte('_')
			c += 'a' - 'A'
		}
		b.WriteRune(c)
	}
	return b.String()
}

// number is a uint32 as protobuf's JSON has it: a number, or the same in quotes.
type number uint32

// UnmarshalJSON implements json.Unmarshaler.
func (n *number) UnmarshalJSON(text []byte) error {
	if string(text) == "null" {
		return nil
	}
	v, err := strconv.ParseFloat(strings.Trim(string(text), `"`), 64)
	if err != nil || v < 0 || v > math.MaxUint32 || v != math.Trunc(v) {
		return fmt.Errorf("%s is not a number between 0 and %d", text, uint32(math.MaxUint32))
	}
	*n = number(v)
	return nil
}

// health is a HealthStatus.
type health int

const (
	unhealthy = 2
	draining  = 3
	timeout   = 4
)

var healthWords = []string{"UNKNOWN", "HEALTHY", "UNHEALTHY", "DRAINING", "TIMEOUT", "DEGRADED"}

// UnmarshalJSON implements json.Unmarshaler: a word, or its number.
func (h *health) UnmarshalJSON(text []byte) error {
	if i := slices.Index(healthWords, strings.Trim(string(text), `"`)); i >= 0 {
		*h = health(i)
		return nil
	}
	var n number
	if n.UnmarshalJSON(text) != nil || text[0] == '"' {
		return fmt.Errorf("%s is not a health_status", text)
	}
	*h = health(n)
	return nil
}

func (h health) usable() bool { return h != unhealthy && h != draining && h != timeout }
