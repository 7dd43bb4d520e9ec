package tokens

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// serve answers every request with f.
func serve(t *testing.T, f http.HandlerFunc) *httptest.Server {
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	return s
}

// metadataServer makes a server the machine's metadata server.
func metadataServer(t *testing.T, f http.HandlerFunc) {
	t.Setenv("GCE_METADATA_HOST", strings.TrimPrefix(serve(t, f).URL, "http://"))
}

const secretWord = "ya29.c.secret" // in what servers write

func answer(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("content-type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// keyFile writes a service account's key file whose tokens come from the URL.
func keyFile(t *testing.T, key *rsa.PrivateKey, url string) string {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	text, err := json.Marshal(map[string]string{
		"type": "service_account", "client_email": "inlet@p.iam.example", "private_key_id": "1", "token_uri": url,
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
	})
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "key.json")
	require.NoError(t, os.WriteFile(file, text, 0o600))
	return file
}

func TestMetadataServer(t *testing.T) {
	metadataServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("metadata-flavor") != "Google" || r.URL.RequestURI() != "/computeMetadata/v1/instance/service-accounts/default/token?scopes=a%2Cb" {
			http.Error(w, r.URL.RequestURI(), http.StatusForbidden)
			return
		}
		_, _ = io.WriteString(w, `{"access_token":"ya29.c.secret","expires_in":3599,"token_type":"Bearer"}`)
	})
	for name, g := range map[string]*Google{"metadata": {Metadata: true}, "application default": {}} {
		g.Scopes = []string{"a", "b"}
		t.Setenv("HOME", t.TempDir()) // without gcloud's credentials
		t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", "")
		token, err := g.Token(t.Context())
		require.NoError(t, err, name)
		require.Equal(t, "Bearer ya29.c.secret", token.Header)
		require.WithinDuration(t, time.Now().Add(time.Hour), token.Expires, time.Minute)
	}
}

// The assertion is signed with the key in the file, for the token endpoint and the scopes.
func TestServiceAccount(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	var url string
	endpoint := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if err := checkAssertion(r, &key.PublicKey, url); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		answer(200, `{"access_token":"ya29.c.secret....","expires_in":3599,"token_type":"Bearer"}`)(w, r)
	})
	url = endpoint.URL
	file := keyFile(t, key, url)
	for name, g := range map[string]*Google{"key file": {KeyFile: file}, "application default": {}} {
		g.Scopes = []string{CloudPlatform}
		t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", file)
		token, err := g.Token(t.Context())
		require.NoError(t, err, name)
		require.Equal(t, "Bearer ya29.c.secret....", token.Header)
		require.WithinDuration(t, time.Now().Add(time.Hour), token.Expires, time.Minute)
	}
}

func checkAssertion(r *http.Request, key *rsa.PublicKey, audience string) error {
	if r.PostFormValue("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer" {
		return errors.New("another grant")
	}
	signed, signature, _ := strings.Cut(r.PostFormValue("assertion"), ".")
	claims, signature, _ := strings.Cut(signature, ".")
	hash := sha256.Sum256([]byte(signed + "." + claims))
	raw, err := base64.RawURLEncoding.DecodeString(signature)
	if err == nil {
		err = rsa.VerifyPKCS1v15(key, crypto.SHA256, hash[:], raw)
	}
	if err != nil {
		return err
	}
	text, err := base64.RawURLEncoding.DecodeString(claims)
	if err != nil {
		return err
	}
	var c struct{ Iss, Aud, Scope string }
	if err := json.Unmarshal(text, &c); err != nil {
		return err
	}
	if c.Iss != "inlet@p.iam.example" || c.Aud != audience || c.Scope != CloudPlatform {
		return fmt.Errorf("claims: %+v", c)
	}
	return nil
}

// What goes wrong is told, and nothing of a response: it may have a token in it.
func TestReasons(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	for name, c := range map[string]struct {
		status             int
		body               string
		endpoint, metadata string // the reasons
	}{
		"refused": {
			400, `{"error":"invalid_grant","error_description":"ya29.c.secret"}`,
			"the token endpoint responded with status 400 (invalid_grant)", "the metadata server responded with status 400",
		},
		"strange code": {
			401, `{"error":"ya29.c.secret"}`, "the token endpoint responded with status 401", "the metadata server responded with status 401",
		},
		"no account": {
			404, secretWord, "the token endpoint responded with status 404", "the metadata server knows no service account of this machine",
		},
		"no JSON": {
			200, secretWord, "oauth2: cannot fetch token: invalid character 'y' looking for beginning of value",
			"the metadata server's response: invalid character 'y' looking for beginning of value",
		},
		"no token":      {200, `{"expires_in":3599}`, noToken, noToken},
		"no life":       {200, `{"access_token":"ya29.c.secret"}`, noLife, noLife},
		"no header":     {200, `{"access_token":"ya29.c.secret\nHost: x","expires_in":3599}`, noToken, noToken},
		"another type":  {200, `{"access_token":"ya29.c.secret","expires_in":3599,"token_type":"mac"}`, "the token is not a bearer token", "the token is not a bearer token"},
		"an ID's token": {200, `{"access_token":"ya29.c.secret","id_token":"ya29.c.secret"}`, "oauth2: error decoding JWT token: illegal base64 data at input byte 0", noLife},
	} {
		t.Run(name, func(t *testing.T) {
			endpoint := &Google{KeyFile: keyFile(t, key, serve(t, answer(c.status, c.body)).URL), Scopes: []string{CloudPlatform}}
			_, err := endpoint.Token(t.Context())
			require.EqualError(t, err, c.endpoint)
			require.NotContains(t, err.Error(), secretWord)

			metadataServer(t, answer(c.status, c.body))
			_, err = (&Google{Metadata: true, Scopes: []string{CloudPlatform}}).Token(t.Context())
			require.EqualError(t, err, c.metadata)
		})
	}
	require.Equal(t, "oauth2/google: status code 403", reason(errors.New("oauth2/google: status code 403: "+secretWord)))
}

const (
	noToken = "the response contains no token that can be in a header"
	noLife  = "the response does not say when the token expires"
)

func TestBadKeyFiles(t *testing.T) {
	write := func(text string) string {
		file := filepath.Join(t.TempDir(), "key.json")
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		return file
	}
	for _, c := range []struct{ file, want string }{
		{filepath.Join(t.TempDir(), "key.json"), "no such file"},
		{write("{}"), `expected credential type "service_account", found ""`},
		{write(`{"type":"authorized_user","refresh_token":"ya29.c.secret"}`), `expected credential type "service_account", found "authorized_user"`},
		{write(`{"type":"service_account","private_key":"ya29.c.secret","token_uri":"http://127.0.0.1:1"}`), "private key should be a PEM or plain PKCS1 or PKCS8"},
		{write(secretWord), "invalid character"},
	} {
		_, err := (&Google{KeyFile: c.file, Scopes: []string{CloudPlatform}}).Token(t.Context())
		require.ErrorContains(t, err, c.want)
		require.NotContains(t, err.Error(), secretWord)
	}
}

// A server that does not respond does not hold up the end of the companion.
func TestSilentServer(t *testing.T) {
	asked, release := make(chan struct{}, 1), make(chan struct{})
	metadataServer(t, func(http.ResponseWriter, *http.Request) {
		select {
		case asked <- struct{}{}:
		default:
		}
		<-release
	})
	t.Cleanup(func() { close(release) })
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		<-asked
		cancel(errors.New("the end"))
	}()
	_, err := (&Google{Metadata: true, Scopes: []string{CloudPlatform}}).Token(ctx)
	require.EqualError(t, err, "the end")
}
