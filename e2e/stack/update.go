package stack

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// Refused is the error of an Update that Envoy refuses. The previous configuration stays in effect.
type Refused struct {
	// Details is Envoy's response, with its log since the update.
	Details string
}

func (e *Refused) Error() string { return "envoy refuses the update: " + e.Details }

// Update changes the configuration, the pools or Edit while Envoy runs, as a control
// plane would; it needs Options.Updatable. It returns when the clusters and the
// listener are in effect, or with a [*Refused]. New pools get no replicas: Edit should
// set their addresses.
//
// A listener that keeps its name is changed in place. A new name makes a new listener,
// perhaps at the same port, and the old one is drained.
func (s *Stack) Update(ctx context.Context, change func(*Options)) error {
	before := s.o
	change(&s.o)
	err := s.update(ctx)
	if err != nil {
		s.o = before
	}
	return err
}

func (s *Stack) update(ctx context.Context) error {
	if !s.o.Updatable {
		return errors.New("stack: Update without Options.Updatable")
	}
	b, err := s.bootstrap()
	if err != nil {
		return err
	}
	return s.install(ctx, b)
}

// install brings the listeners and the clusters of a bootstrap into effect.
func (s *Stack) install(ctx context.Context, b *bootstrapv3.Bootstrap) error {
	log, err := os.Stat(s.EnvoyLog())
	if err != nil {
		return err
	}
	if err := s.shared.claim(b); err != nil {
		return err
	}
	resources := b.GetStaticResources()
	if err := s.writeClusters(resources.GetClusters()); err != nil {
		return err
	}
	err = s.envoy.Until(ctx, 20*time.Second, "done with the new clusters", func() bool {
		stats, err := s.get(ctx, "/stats?filter=cluster_manager.cds.version_text")
		return err == nil && strings.Contains(string(stats), strconv.Quote(s.version()))
	})
	if err != nil {
		return err
	}
	rejectedBefore, err := s.get(ctx, rejections)
	if err != nil {
		return err
	}
	if err := s.writeListeners(resources.GetListeners()); err != nil {
		return err
	}
	name, rejected := resources.GetListeners()[0].GetName(), false
	err = s.envoy.Until(ctx, 3*time.Minute, "done with the new listener", func() bool {
		now, err := s.get(ctx, rejections)
		if err != nil {
			return false
		}
		if rejected = !bytes.Equal(now, rejectedBefore); rejected {
			return true
		}
		// The version that config_dump has of a listener stays when only its filter chains change.
		stats, err := s.get(ctx, "/stats?filter=listener_manager.lds.version_text|listener_manager.total_listeners_warming")
		if err != nil || !strings.Contains(string(stats), strconv.Quote(s.version())) || !strings.Contains(string(stats), "warming: 0\n") {
			return false
		}
		s.gateway, err = s.listenerAddress(ctx, name)
		return err == nil
	})
	if err != nil || !rejected {
		return err
	}
	state, err := s.listenerState(ctx, name)
	text, _ := os.ReadFile(s.EnvoyLog())
	return errors.Join(err, &Refused{Details: state.Error.Details + "\n" + lastLines(string(text[min(int(log.Size()), len(text)):]), 60)})
}

// rejections is Envoy's counter of refused listener updates.
const rejections = "/stats?filter=listener_manager.lds.update_rejected"

// listenerState is what Envoy reports about one listener.
type listenerState struct {
	Name  string `json:"name"`
	Error struct {
		Details string `json:"details"`
	} `json:"error_state"`
}

func (s *Stack) listenerState(ctx context.Context, name string) (listenerState, error) {
	body, err := s.get(ctx, "/config_dump?resource=dynamic_listeners")
	if err != nil {
		return listenerState{}, err
	}
	var dump struct {
		Listeners []listenerState `json:"configs"`
	}
	if err := json.Unmarshal(body, &dump); err != nil {
		return listenerState{}, err
	}
	for _, l := range dump.Listeners {
		if l.Name == name {
			return l, nil
		}
	}
	return listenerState{}, nil
}

// makeUpdatable makes Envoy watch files for its listener and its clusters.
func (s *Stack) makeUpdatable(b *bootstrapv3.Bootstrap) error {
	resources := b.GetStaticResources()
	if err := s.writeClusters(resources.GetClusters()); err != nil {
		return err
	}
	if err := s.writeListeners(resources.GetListeners()); err != nil {
		return err
	}
	resources.Clusters, resources.Listeners = nil, nil
	b.DynamicResources = &bootstrapv3.Bootstrap_DynamicResources{
		CdsConfig: watched(s.discoveryFile("cds")),
		LdsConfig: watched(s.discoveryFile("lds")),
	}
	return nil
}

func watched(file string) *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ConfigSourceSpecifier: &corev3.ConfigSource_PathConfigSource{PathConfigSource: &corev3.PathConfigSource{
			Path: file, WatchedDirectory: &corev3.WatchedDirectory{Path: filepath.Dir(file)},
		}},
		ResourceApiVersion: corev3.ApiVersion_V3,
	}
}

// discovery are the files that an Envoy watches.
type discovery struct {
	dir     string // of the Envoy
	updates int
}

func (s *Stack) discoveryFile(kind string) string {
	return filepath.Join(s.watched.dir, kind, kind+".json")
}

// version identifies the content of the files that were written last.
func (s *Stack) version() string { return fmt.Sprintf("update-%d", s.watched.updates) }

func (s *Stack) writeClusters(clusters []*clusterv3.Cluster) error {
	s.watched.updates++
	return s.writeDiscovery("cds", messages(clusters))
}

func (s *Stack) writeListeners(listeners []*listenerv3.Listener) error {
	return s.writeDiscovery("lds", messages(listeners))
}

func messages[T proto.Message](list []T) []proto.Message {
	all := make([]proto.Message, len(list))
	for i, m := range list {
		all[i] = m
	}
	return all
}

func (s *Stack) writeDiscovery(kind string, resources []proto.Message) error {
	r := &discoveryv3.DiscoveryResponse{VersionInfo: s.version()}
	for _, m := range resources {
		a, err := anypb.New(m)
		if err != nil {
			return err
		}
		r.Resources = append(r.Resources, a)
	}
	text, err := protojson.Marshal(r)
	if err != nil {
		return err
	}
	return writeJSON(s.discoveryFile(kind), json.RawMessage(text))
}
