package peers

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/inlet-proxy/inlet/e2e/process"
)

const token = "bench" // of the only user, who has all permissions

// cluster is a Kubernetes API without any controllers.
type cluster struct {
	dir, kubeconfig string
	port            int
	processes       []*process.Process
	client          *http.Client
}

// startCluster starts etcd and kube-apiserver, and registers the extension's resources.
func startCluster(ctx context.Context, p programs, dir string) (*cluster, error) {
	c := &cluster{dir: dir, kubeconfig: filepath.Join(dir, "kubeconfig"), client: &http.Client{
		Timeout:   20 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}, // a self-signed certificate
	}}
	err := c.startEtcdAndServer(ctx, p)
	if err == nil {
		err = c.define(ctx, p.definitions)
	}
	if err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (c *cluster) close() {
	for i := len(c.processes) - 1; i >= 0; i-- {
		c.processes[i].Stop(5 * time.Second)
	}
}

// start starts a program; when it ends, so does the cluster.
func (c *cluster) start(ctx context.Context, name, path string, args ...string) (*process.Process, error) {
	p, err := process.Start(ctx, process.Command{
		Name: name, Path: path, Args: args, Dir: c.dir,
		Env: []string{"KUBECONFIG=" + c.kubeconfig, "NAMESPACE=default"}, Log: filepath.Join(c.dir, name+".log"),
	})
	if err == nil {
		c.processes = append(c.processes, p)
	}
	return p, err
}

func (c *cluster) startEtcdAndServer(ctx context.Context, p programs) error {
	ports, err := freePorts(3)
	if err != nil {
		return err
	}
	etcd := fmt.Sprintf("http://127.0.0.1:%d", ports[0])
	if _, err := c.start(ctx, "etcd", p.etcd, "--data-dir", filepath.Join(c.dir, "etcd"), "--unsafe-no-fsync",
		"--listen-client-urls", etcd, "--advertise-client-urls", etcd,
		"--listen-peer-urls", fmt.Sprintf("http://127.0.0.1:%d", ports[1])); err != nil {
		return err
	}
	c.port = ports[2]
	tokens, key := filepath.Join(c.dir, "tokens.csv"), filepath.Join(c.dir, "accounts.key")
	if err := errors.Join(
		os.WriteFile(tokens, []byte(token+`,admin,admin,"system:masters"`+"\n"), 0o600),
		writeKey(key), c.writeKubeconfig(),
	); err != nil {
		return err
	}
	server, err := c.start(ctx, "kube-apiserver", p.apiserver, "--etcd-servers", etcd,
		"--bind-address", "127.0.0.1", "--secure-port", strconv.Itoa(c.port), "--cert-dir", filepath.Join(c.dir, "certificates"),
		"--service-account-issuer", "https://kubernetes.default.svc", "--service-account-key-file", key, "--service-account-signing-key-file", key,
		"--token-auth-file", tokens, "--authorization-mode", "RBAC", "--service-cluster-ip-range", "10.0.0.0/24",
		"--disable-admission-plugins", "ServiceAccount", "--endpoint-reconciler-type", "none")
	if err != nil {
		return err
	}
	return server.Until(ctx, 2*time.Minute, "ready", func() bool {
		_, err := c.call(ctx, http.MethodGet, "/readyz", "", nil)
		return err == nil
	})
}

func writeKey(file string) error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	block := &pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}
	return os.WriteFile(file, pem.EncodeToMemory(block), 0o600)
}

type object = map[string]any

func (c *cluster) writeKubeconfig() error {
	text, err := json.Marshal(object{
		"apiVersion": "v1", "kind": "Config", "current-context": "bench",
		"clusters": []any{object{"name": "bench", "cluster": object{
			"server": fmt.Sprintf("https://127.0.0.1:%d", c.port), "insecure-skip-tls-verify": true,
		}}},
		"users":    []any{object{"name": "admin", "user": object{"token": token}}},
		"contexts": []any{object{"name": "bench", "context": object{"cluster": "bench", "user": "admin"}}},
	})
	if err != nil {
		return err
	}
	return os.WriteFile(c.kubeconfig, text, 0o600)
}

// call calls the API; any status of 300 and above is an error.
func (c *cluster) call(ctx context.Context, method, path, contentType string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, fmt.Sprintf("https://127.0.0.1:%d%s", c.port, path), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("authorization", "Bearer "+token)
	if contentType != "" {
		req.Header.Set("content-type", contentType)
	}
	res, err := c.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	answer, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %s: %s", method, path, res.Status, answer)
	}
	return answer, err
}

// create makes an object.
func (c *cluster) create(ctx context.Context, path string, o object) error {
	body, err := json.Marshal(o)
	if err == nil {
		_, err = c.call(ctx, http.MethodPost, path, "application/json", body)
	}
	return err
}

// define registers the extension's resources, and waits until they are served.
func (c *cluster) define(ctx context.Context, folder string) error {
	files, err := filepath.Glob(filepath.Join(folder, "*.yaml"))
	if err != nil || len(files) == 0 {
		return fmt.Errorf("no definitions in %s: %w", folder, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if _, err := c.call(ctx, http.MethodPost, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", "application/yaml", text); err != nil {
			return err
		}
	}
	return c.processes[len(c.processes)-1].Until(ctx, 30*time.Second, "serving inference pools", func() bool {
		_, err := c.call(ctx, http.MethodGet, poolPath, "", nil)
		return err == nil
	})
}

const (
	poolPath = "/apis/inference.networking.k8s.io/v1/namespaces/default/inferencepools"
	podPath  = "/api/v1/namespaces/default/pods"
)

// addPool makes an InferencePool of ready pods with the given IPs, all on one port.
func (c *cluster) addPool(ctx context.Context, name string, ips []string, port int) error {
	labels := object{"app": name}
	err := c.create(ctx, poolPath, object{
		"apiVersion": "inference.networking.k8s.io/v1", "kind": "InferencePool", "metadata": object{"name": name},
		"spec": object{
			"targetPorts":       []any{object{"number": port}},
			"selector":          object{"matchLabels": labels},
			"endpointPickerRef": object{"name": name + "-epp", "port": object{"number": 9002}},
		},
	})
	for i := 0; i < len(ips) && err == nil; i++ {
		pod := fmt.Sprintf("%s-%d", name, i)
		err = c.create(ctx, podPath, object{
			"apiVersion": "v1", "kind": "Pod", "metadata": object{"name": pod, "labels": labels},
			"spec": object{"nodeName": "bench", "containers": []any{object{"name": "server", "image": "none"}}},
		})
		if err != nil {
			return err
		}
		var status []byte
		status, err = json.Marshal(object{"status": object{
			"phase": "Running", "podIP": ips[i], "podIPs": []any{object{"ip": ips[i]}},
			"conditions": []any{object{"type": "Ready", "status": "True"}},
		}})
		if err == nil {
			_, err = c.call(ctx, http.MethodPatch, podPath+"/"+pod+"/status", "application/merge-patch+json", status)
		}
	}
	return err
}

// freePorts returns ports that are unused at the moment.
func freePorts(n int) ([]int, error) {
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer func() { _ = l.Close() }()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}
