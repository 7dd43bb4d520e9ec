package gateway

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/inlet-proxy/inlet/e2e/process"
)

// host is what stands where Kubernetes would: the addresses of Services, and files where an image has them.
type host struct {
	port     int                 // of the listener
	services map[string][]string // name of a Service: ip:port of its pods
	module   string              // file
	plugin   string              // file
	envoy    string              // version
	log      string              // file of the access log
	image    string              // of the plugin, in a registry
	listener string              // its name
	secret   object              // the listener's certificate, if it speaks HTTPS

	authority *x509.CertPool // of that certificate
}

// hostForm turns manifests for Kubernetes into the same for Host mode. It changes what differs there and nothing else: Envoy is a process instead of a
// Deployment, listens on loopback, and has Inlet in another file; Services become Backends with addresses, as Envoy Gateway reads no EndpointSlices from files.
func hostForm(t *testing.T, all []object, h *host) []object {
	t.Helper()
	var out []object
	for _, o := range all {
		switch spec, _ := o["spec"].(object); o["kind"] {
		case "EnvoyProxy":
			hostProxy(t, spec, h)
		case "Gateway":
			listener := at(spec, "listeners", 0).(object)
			listener["port"], h.listener = h.port, listener["name"].(string)
			if listener["protocol"] == "HTTPS" {
				out = append(out, h.secret)
			}
		case "HTTPRoute":
			for _, rule := range at(spec, "rules").([]any) {
				refs, _ := at(rule, "backendRefs").([]any)
				for _, ref := range refs {
					out = append(out, h.backend(t, ref.(object))...)
				}
			}
		case "EnvoyPatchPolicy":
			h.patches(t, spec)
		case "EnvoyExtensionPolicy":
			if image, ok := at(spec, "wasm", 0, "code", "image").(object); ok {
				image["url"] = h.image
			}
		case "Backend": // a service elsewhere: in plain HTTP on this machine
			delete(spec, "tls")
			spec["endpoints"] = h.endpoints(t, at(o, "metadata", "name").(string))
		case "GatewayClass", "ClientTrafficPolicy", "BackendTrafficPolicy", "HTTPRouteFilter", "Namespace", "Secret":
		default: // what Envoy Gateway does not read
			continue
		}
		out = append(out, o)
	}
	return append(out, h.loopback())
}

func hostProxy(t *testing.T, spec object, h *host) {
	t.Helper()
	if at(spec, "provider", "type") != "Kubernetes" {
		t.Fatal("the EnvoyProxy is not one for Kubernetes")
	}
	spec["provider"] = object{"type": "Host", "host": object{"envoyVersion": h.envoy}}
	spec["extraArgs"] = []any{"--file-flush-interval-msec 20"} // the access log is read while it is written
	if m, ok := at(spec, "dynamicModules", 0, "source", "local").(object); ok {
		m["path"] = h.module
	}
	at(spec, "telemetry", "accessLog", "settings", 0, "sinks", 0, "file").(object)["path"] = h.log
}

// backend turns a reference to a Service into one to a Backend, and returns the latter unless the reference is one already.
func (h *host) backend(t *testing.T, ref object) []object {
	t.Helper()
	if kind := ref["kind"]; kind != nil && kind != "Service" {
		return nil
	}
	name := ref["name"].(string)
	ref["group"], ref["kind"] = "gateway.envoyproxy.io", "Backend"
	delete(ref, "port")
	return []object{{
		"apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "Backend",
		"metadata": object{"name": name, "namespace": "inlet"},
		"spec":     object{"endpoints": h.endpoints(t, name)},
	}}
}

// endpoints are those of a Service or Backend.
func (h *host) endpoints(t *testing.T, name string) []any {
	t.Helper()
	addresses, known := h.services[name]
	if !known {
		t.Fatalf("the test knows no address of %s", name)
	}
	var all []any
	for _, a := range addresses {
		all = append(all, object{"ip": ipPort(t, a)})
	}
	return all
}

func ipPort(t *testing.T, address string) object {
	t.Helper()
	ip, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	return object{"address": ip, "port": number}
}

// patches changes the addresses and files that patches name.
func (h *host) patches(t *testing.T, spec object) {
	t.Helper()
	for _, p := range at(spec, "jsonPatches").([]any) {
		value := at(p, "operation", "value")
		if a, ok := at(value, "load_assignment", "endpoints", 0, "lb_endpoints", 0, "endpoint", "address", "socket_address").(object); ok {
			name, _, isService := strings.Cut(a["address"].(string), ".inlet.svc.")
			if !isService {
				continue
			}
			to := h.endpoints(t, name)[0].(object)["ip"].(object)
			a["address"], a["port_value"] = to["address"], to["port"]
		}
		if local, ok := at(value, "typed_config", "config", "vm_config", "code", "local").(object); ok {
			local["filename"] = h.plugin
		}
	}
}

// loopback is a patch by which Envoy listens on 127.0.0.1 instead of 0.0.0.0.
func (h *host) loopback() object {
	return object{
		"apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "EnvoyPatchPolicy",
		"metadata": object{"name": "loopback", "namespace": "inlet"},
		"spec": object{
			"type": "JSONPatch", "targetRef": object{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "inlet"},
			"jsonPatches": []any{object{
				"type": "type.googleapis.com/envoy.config.listener.v3.Listener", "name": "inlet/inlet/" + h.listener,
				"operation": object{"op": "replace", "path": "/address/socket_address/address", "value": "127.0.0.1"},
			}},
		},
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	port, err := process.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// certificate makes a certificate for 127.0.0.1.
func (h *host) certificate(t *testing.T) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	inPEM := func(kind string, der []byte) string {
		return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	h.authority = x509.NewCertPool()
	made, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	h.authority.AddCert(made)
	h.secret = object{
		"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": object{"name": "inlet-tls", "namespace": "inlet"},
		"data": object{"tls.crt": inPEM("CERTIFICATE", der), "tls.key": inPEM("PRIVATE KEY", private)},
	}
}

func (h *host) url() string { return fmt.Sprintf("%s://127.0.0.1:%d", h.listener, h.port) }
