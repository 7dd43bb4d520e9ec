package kube

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/inlet-proxy/inlet/internal/version"
)

// Cluster is a Kubernetes API server, and the namespace of what names none.
type Cluster struct {
	Namespace string

	core, discovery rest.Interface // typed, in protobuf: there may be tens of thousands of Pods
	dynamic         dynamic.Interface
}

// Connect returns the cluster of a kubeconfig file; "" is that of the variable KUBECONFIG, else of the Pod that this process runs in. It does
// not yet send anything. namespace is the one of what names none; "" is the kubeconfig's, or the Pod's own.
func Connect(kubeconfig, namespace string) (*Cluster, error) {
	rules := &clientcmd.ClientConfigLoadingRules{ExplicitPath: kubeconfig}
	if kubeconfig == "" {
		rules.Precedence = []string{os.Getenv(clientcmd.RecommendedConfigPathEnvVar)}
	}
	var config *rest.Config
	var err error
	if kubeconfig == "" && rules.Precedence[0] == "" {
		if config, err = rest.InClusterConfig(); err == nil && namespace == "" {
			namespace, err = ownNamespace()
		}
		if errors.Is(err, rest.ErrNotInCluster) {
			err = errors.New("this process does not run in a Pod: set kubernetes.kubeconfig, or the variable KUBECONFIG")
		}
	} else {
		loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil)
		if config, err = loader.ClientConfig(); err == nil && namespace == "" {
			namespace, _, err = loader.Namespace()
		}
	}
	if err != nil {
		return nil, err
	}
	return connect(config, namespace)
}

// namespaceFile is where a Pod finds its namespace.
const namespaceFile = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

func ownNamespace() (string, error) {
	text, err := os.ReadFile(namespaceFile)
	if err != nil {
		return "", fmt.Errorf("%w; set kubernetes.namespace", err)
	}
	return strings.TrimSpace(string(text)), nil
}

func connect(config *rest.Config, namespace string) (*Cluster, error) {
	config = rest.CopyConfig(config)
	config.UserAgent = "inlet-companion/" + version.String()
	config.QPS, config.Burst = 50, 100 // watches need one request each; only the first lists and the writes of status are more
	c := &Cluster{Namespace: namespace}
	var err error
	if c.dynamic, err = dynamic.NewForConfig(config); err != nil {
		return nil, err
	}
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), discoveryv1.AddToScheme(scheme)); err != nil {
		return nil, err
	}
	codecs := serializer.NewCodecFactory(scheme).WithoutConversion()
	typed := func(path string, group schema.GroupVersion) (rest.Interface, error) {
		config := rest.CopyConfig(config)
		config.APIPath, config.GroupVersion, config.NegotiatedSerializer = path, &group, codecs
		config.ContentType, config.AcceptContentTypes = runtime.ContentTypeProtobuf, runtime.ContentTypeProtobuf+","+runtime.ContentTypeJSON
		return rest.RESTClientFor(config)
	}
	if c.core, err = typed("/api", corev1.SchemeGroupVersion); err != nil {
		return nil, err
	}
	c.discovery, err = typed("/apis", discoveryv1.SchemeGroupVersion)
	return c, err
}

// serves reports whether the API server has a kind of objects. An error is not an answer.
func (c *Cluster) serves(ctx context.Context, kind schema.GroupVersionResource) (bool, error) {
	text, err := c.core.Get().AbsPath("/apis", kind.Group, kind.Version).SetHeader("Accept", "application/json").Do(ctx).Raw()
	return hasResource(text, kind.Resource, err)
}
