package e2e_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/inlet-proxy/inlet/e2e/stack"
)

// TestUpgrade: a client that asks for another protocol gets a response at once, on a connection whose request has no end.
func TestUpgrade(t *testing.T) {
	for _, abi := range abis {
		t.Run(abi, func(t *testing.T) {
			s := stack.ForTest(t, stack.Options{
				ABI: abi, NoCompanion: true, Pools: []stack.Pool{{Name: "llama"}, {Name: "gemma"}},
				Edit: func(b *bootstrapv3.Bootstrap) { editManager(b, allowConnect) },
			})
			address := strings.TrimPrefix(s.URL(), "http://")
			for name, request := range map[string]string{
				"without a body":           "GET /v1/responses HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n",
				"with a body that is late": "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\ncontent-length: 100\r\n\r\n",
				"with a body in chunks":    "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\ntransfer-encoding: chunked\r\n\r\n",
			} {
				t.Run(name, func(t *testing.T) {
					resp, body := speak(t, address, request)
					require.Equal(t, http.StatusUpgradeRequired, resp.StatusCode)
					require.Equal(t, "upgrade_not_supported", resp.Header.Get("x-inlet-reason"))
					require.Contains(t, body, `"code":"upgrade_not_supported"`)
					require.Equal(t, "HTTP/1.1", resp.Header.Get("upgrade"))
				})
			}
			for path, want := range map[string]string{
				"/v1/responses": `{"error":{"code":null,"message":"This gateway does not support protocol upgrades.","param":null,"type":"permission_error"}}`,
				"/v1/messages":  `{"error":{"message":"This gateway does not support protocol upgrades.","type":"permission_error"},"type":"error"}`,
			} {
				t.Run("to what Envoy does not know, "+path, func(t *testing.T) {
					resp, body := speak(t, address, "GET "+path+" HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: foo\r\n\r\n")
					require.Equal(t, http.StatusForbidden, resp.StatusCode)
					require.JSONEq(t, want, body)
				})
			}
			t.Run("HTTP 2", func(t *testing.T) { require.Equal(t, "426", extendedConnect(t, address, "/v1/responses")) })
			t.Run("CONNECT", func(t *testing.T) {
				resp, _ := speak(t, address, "CONNECT x:443 HTTP/1.1\r\nhost: x:443\r\n\r\n")
				require.GreaterOrEqual(t, resp.StatusCode, 400, "there is no tunnel")
			})
			require.Empty(t, s.EnvoyErrors())
		})
	}
}

// allowConnect accepts what Envoy can: WebSocket over HTTP/2, and tunnels.
func allowConnect(m *hcmv3.HttpConnectionManager) {
	m.Http2ProtocolOptions = &corev3.Http2ProtocolOptions{AllowConnect: true}
	m.UpgradeConfigs = append(m.GetUpgradeConfigs(), &hcmv3.HttpConnectionManager_UpgradeConfig{
		UpgradeType: "CONNECT", Enabled: wrapperspb.Bool(true),
	})
}

// speak writes to a new connection and reads one response.
func speak(t *testing.T, address, request string) (*http.Response, string) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	_, err = io.WriteString(conn, request)
	require.NoError(t, err)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err, "no answer")
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp, string(body)
}

// extendedConnect asks for a WebSocket over HTTP/2 (RFC 8441) and returns the response's status.
func extendedConnect(t *testing.T, address, path string) string {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	_, err = io.WriteString(conn, http2.ClientPreface)
	require.NoError(t, err)
	framer := http2.NewFramer(conn, conn)
	require.NoError(t, framer.WriteSettings())
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, f := range [][2]string{
		{":method", "CONNECT"}, {":protocol", "websocket"}, {":scheme", "http"}, {":path", path}, {":authority", "x"}, {"sec-websocket-version", "13"},
	} {
		require.NoError(t, encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}))
	}
	require.NoError(t, framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true}))
	status := ""
	decoder := hpack.NewDecoder(4096, func(f hpack.HeaderField) {
		if f.Name == ":status" {
			status = f.Value
		}
	})
	for {
		frame, err := framer.ReadFrame()
		require.NoError(t, err, "no answer")
		switch frame := frame.(type) {
		case *http2.HeadersFrame:
			_, err := decoder.Write(frame.HeaderBlockFragment())
			require.NoError(t, err)
			return status
		case *http2.RSTStreamFrame:
			return fmt.Sprint("reset: ", frame.ErrCode)
		}
	}
}
