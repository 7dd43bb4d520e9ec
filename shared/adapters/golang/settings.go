package golang

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/inlet-proxy/inlet/shared/contract/conf"
)

// settings are what plugin_config says.
type settings struct {
	document []byte              // the chain's
	clusters map[string]*cluster // by name in the document
}

// What plugin_config may be. A TypedStruct has the struct in its second field.
const (
	typePrefix  = "type.googleapis.com/"
	plainStruct = typePrefix + "google.protobuf.Struct"
	typedStruct = typePrefix + "xds.type.v3.TypedStruct"
	udpaStruct  = typePrefix + "udpa.type.v1.TypedStruct"
	structField = 2
)

// readSettings reads {config: <the document>, clusters: {<name>: <URL>}}. The document is text or an object.
func readSettings(message *anypb.Any) (*settings, error) {
	text, err := structOf(message)
	if err != nil {
		return nil, err
	}
	set := &settings{clusters: map[string]*cluster{}}
	err = conf.Decode(text, func(o *conf.Object) {
		o.Required("config")
		o.Value("config", func(*conf.Value) {})
		o.Object("clusters", func(o *conf.Object) {
			o.Each(func(name string, v *conf.Value) { set.clusters[name] = readCluster(v) })
		})
	})
	if err != nil {
		return nil, err
	}
	var parts struct{ Config json.RawMessage }
	if err := json.Unmarshal(text, &parts); err != nil {
		return nil, err
	}
	var document string
	if json.Unmarshal(parts.Config, &document) == nil {
		parts.Config = []byte(document)
	}
	set.document = parts.Config
	return set, nil
}

// structOf returns the message as JSON.
func structOf(message *anypb.Any) ([]byte, error) {
	bytes := message.GetValue()
	switch message.GetTypeUrl() {
	case plainStruct:
	case typedStruct, udpaStruct:
		bytes = lastField(bytes, structField)
	default:
		return nil, fmt.Errorf("the plugin_config is %q; give it as %s, with config (the document) and clusters in its value", message.GetTypeUrl(), typedStruct)
	}
	var s structpb.Struct
	if err := proto.Unmarshal(bytes, &s); err != nil {
		return nil, fmt.Errorf("the plugin_config cannot be read: %w", err)
	}
	return json.Marshal(s.AsMap())
}

// lastField returns the last field of a number that holds bytes, nil if there is none.
func lastField(message []byte, number protowire.Number) (found []byte) {
	for len(message) > 0 {
		at, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return found
		}
		message = message[n:]
		size := protowire.ConsumeFieldValue(at, kind, message)
		if size < 0 {
			return found
		}
		if at == number && kind == protowire.BytesType {
			found, _ = protowire.ConsumeBytes(message)
		}
		message = message[size:]
	}
	return found
}

// clusterKey is the key of all clusters that are called, wherever it stands in a document.
const clusterKey = "cluster"

// Where the companion's stands, which the document of a route does not call, and where an embedded companion names the clusters
// that have its replicas.
const (
	companionPath = "companion." + clusterKey
	embeddedPath  = "companion.embedded"
)

// missing reports the clusters that a document uses and that have no address.
func missing(document []byte, have map[string]*cluster, ofRoute bool) error {
	var root yaml.Node
	if err := yaml.Unmarshal(document, &root); err != nil {
		return err
	}
	var mistakes conf.Errors
	var walk func(n *yaml.Node, path string)
	walk = func(n *yaml.Node, path string) {
		switch n.Kind {
		case yaml.DocumentNode:
			walk(n.Content[0], path)
		case yaml.SequenceNode:
			for i, item := range n.Content {
				walk(item, path+"["+strconv.Itoa(i)+"]")
			}
		case yaml.MappingNode:
			for i := 0; i+1 < len(n.Content); i += 2 {
				key, value := n.Content[i].Value, n.Content[i+1]
				at := strings.TrimPrefix(path+"."+key, ".")
				if key == clusterKey && value.Kind == yaml.ScalarNode && have[value.Value] == nil && !(ofRoute && at == companionPath) {
					mistakes = append(mistakes, conf.Error{Path: at, Line: value.Line, Column: value.Column, Message: fmt.Sprintf(
						"%q has no address: the contrib filter cannot call Envoy's clusters, so say where it is in the plugin_config, clusters: {%s: \"http://host:port\"}", value.Value, value.Value)})
				}
				if at != embeddedPath {
					walk(value, at)
				}
			}
		}
	}
	walk(&root, "")
	if mistakes == nil {
		return nil
	}
	return mistakes
}
