// Package apiserver runs a real kube-apiserver with its etcd for tests. There is no controller, scheduler or kubelet: a test writes the status of
// Pods itself.
package apiserver

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/inlet-proxy/inlet/e2e/kubebin"
	"github.com/inlet-proxy/inlet/e2e/process"
)

// admin may do everything.
const admin = "admin"

// Server is a running API server.
type Server struct {
	dir                         string
	etcdPath, path              string
	etcdPort, peerPort, apiPort int
	etcd, api                   *process.Process
}

// Start starts an API server with its files in dir. Beside the user admin, who may do everything, it knows users without any rights. It ends
// with ctx, and at the latest with this process. progress may be nil.
func Start(ctx context.Context, dir string, progress io.Writer, users ...string) (*Server, error) {
	s := &Server{dir: dir}
	var err error
	if s.etcdPath, err = kubebin.Path(ctx, kubebin.Etcd, progress); err != nil {
		return nil, err
	}
	if s.path, err = kubebin.Path(ctx, kubebin.KubeAPIServer, progress); err != nil {
		return nil, err
	}
	if err := s.writeFiles(users); err != nil {
		return nil, err
	}
	for try := 0; ; try++ {
		if err = s.takePorts(); err != nil {
			return nil, err
		}
		// Another program may have taken one of them meanwhile.
		if err = s.startEtcd(ctx); err == nil {
			if err = s.Restart(ctx); err == nil {
				return s, nil
			}
		}
		s.Close()
		if try == 2 {
			return nil, err
		}
	}
}

func (s *Server) file(name string) string { return filepath.Join(s.dir, name) }

// writeFiles writes the key of the tokens of service accounts, and the users' own tokens, which are their names.
func (s *Server) writeFiles(users []string) error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	if err := os.WriteFile(s.file("accounts.key"), text, 0o600); err != nil {
		return err
	}
	var tokens strings.Builder
	fmt.Fprintf(&tokens, "%s,%[1]s,%[1]s,\"system:masters\"\n", admin)
	for _, user := range users {
		fmt.Fprintf(&tokens, "%s,%[1]s,%[1]s\n", user)
	}
	return os.WriteFile(s.file("tokens.csv"), []byte(tokens.String()), 0o600)
}

func (s *Server) takePorts() error {
	for _, port := range []*int{&s.etcdPort, &s.peerPort, &s.apiPort} {
		var err error
		if *port, err = process.FreePort(); err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) startEtcd(ctx context.Context) error {
	client, peer := fmt.Sprintf("http://127.0.0.1:%d", s.etcdPort), fmt.Sprintf("http://127.0.0.1:%d", s.peerPort)
	var err error
	s.etcd, err = process.Start(ctx, process.Command{
		Name: "etcd", Path: s.etcdPath, Dir: s.dir, Log: s.file("etcd.log"),
		Args: []string{
			"--data-dir", s.file("etcd"), "--listen-client-urls", client, "--advertise-client-urls", client,
			"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default=" + peer,
		},
	})
	if err != nil {
		return err
	}
	return s.etcd.Until(ctx, 30*time.Second, "listening", func() bool {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.etcdPort))
		if err != nil {
			return false
		}
		return conn.Close() == nil
	})
}

// Restart starts the API server again after Stop or Kill, at the address that it had.
func (s *Server) Restart(ctx context.Context) error {
	key := s.file("accounts.key")
	var err error
	s.api, err = process.Start(ctx, process.Command{
		Name: "kube-apiserver", Path: s.path, Dir: s.dir, Log: s.file("kube-apiserver.log"),
		Args: []string{
			"--etcd-servers", fmt.Sprintf("http://127.0.0.1:%d", s.etcdPort), "--bind-address", "127.0.0.1", "--secure-port", fmt.Sprint(s.apiPort),
			"--cert-dir", s.file("certs"), "--token-auth-file", s.file("tokens.csv"), "--authorization-mode", "RBAC",
			"--service-account-issuer", "https://inlet.test", "--service-account-key-file", key, "--service-account-signing-key-file", key,
			"--service-cluster-ip-range", "10.0.0.0/24", "--disable-admission-plugins", "ServiceAccount", "--endpoint-reconciler-type", "none",
			"--watch-cache=true", "--event-ttl", "10m",
		},
	})
	if err != nil {
		return err
	}
	client, err := rest.HTTPClientFor(s.Config(admin))
	if err != nil {
		return err
	}
	return s.api.Until(ctx, 60*time.Second, "ready", func() bool {
		resp, err := client.Get(s.Config(admin).Host + "/readyz")
		if err != nil {
			return false
		}
		return resp.Body.Close() == nil && resp.StatusCode == 200
	})
}

// Config is how a user connects.
func (s *Server) Config(user string) *rest.Config {
	return &rest.Config{
		Host: fmt.Sprintf("https://127.0.0.1:%d", s.apiPort), BearerToken: user,
		// Its certificate is its own and new with each folder.
		TLSClientConfig: rest.TLSClientConfig{Insecure: true},
		QPS:             1000, Burst: 1000,
	}
}

// Client returns a client of the user admin.
func (s *Server) Client() (dynamic.Interface, error) { return dynamic.NewForConfig(s.Config(admin)) }

// Kubeconfig writes a kubeconfig file for a user, whose namespace is default.
func (s *Server) Kubeconfig(user string) (string, error) {
	c := s.Config(user)
	file := s.file(user + ".kubeconfig")
	return file, clientcmd.WriteToFile(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{"test": {Server: c.Host, InsecureSkipTLSVerify: true}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{user: {Token: user}},
		Contexts:       map[string]*clientcmdapi.Context{"test": {Cluster: "test", AuthInfo: user, Namespace: "default"}},
		CurrentContext: "test",
	}, file)
}

// Kill ends the API server at once. What it has stored stays in etcd.
func (s *Server) Kill() { s.api.Kill() }

// Logs is the end of what both have logged, for a failed test.
func (s *Server) Logs() string {
	var all strings.Builder
	for _, name := range []string{"etcd.log", "kube-apiserver.log"} {
		text, err := os.ReadFile(s.file(name))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			text = []byte(err.Error())
		}
		fmt.Fprintf(&all, "--- %s\n%s\n", name, text[max(0, len(text)-2000):])
	}
	return all.String()
}

// Close ends both.
func (s *Server) Close() {
	for _, p := range []*process.Process{s.api, s.etcd} {
		if p != nil {
			p.Kill()
		}
	}
}
