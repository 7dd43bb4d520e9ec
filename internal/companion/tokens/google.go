package tokens

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"

	"cloud.google.com/go/compute/metadata"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google"
)

// CloudPlatform is the scope that all of Google Cloud's APIs accept. What a token may do is decided by the roles of its account.
const CloudPlatform = "https://www.googleapis.com/auth/cloud-platform"

// requestTimeout is how long a token endpoint has to respond.
const requestTimeout = 10 * time.Second

// Google gets access tokens of Google Cloud. The zero value uses application default credentials.
type Google struct {
	KeyFile  string // of a service account
	Metadata bool   // the machine's own account, from the metadata server
	Scopes   []string
}

// Token implements Source. Everything is looked up again each time: a key file that was replaced needs no restart, and no copy of an old token is
// returned.
func (g *Google) Token(ctx context.Context) (Token, error) {
	// The library ends its calls by itself, but not always with ctx.
	type result struct {
		token *oauth2.Token
		err   error
	}
	done := make(chan result, 1)
	go func() {
		t, err := g.ask(ctx)
		done <- result{t, err}
	}()
	select {
	case r := <-done:
		if r.err == nil {
			return check(r.token)
		}
		if ctx.Err() == nil {
			return Token{}, errors.New(reason(r.err))
		}
	case <-ctx.Done():
	}
	return Token{}, context.Cause(ctx)
}

func (g *Google) ask(ctx context.Context) (*oauth2.Token, error) {
	ctx = context.WithValue(ctx, oauth2.HTTPClient, &http.Client{Timeout: requestTimeout})
	if g.Metadata {
		return fromMetadata(ctx, g.Scopes)
	}
	var c *google.Credentials
	var err error
	if g.KeyFile == "" {
		c, err = google.FindDefaultCredentials(ctx, g.Scopes...)
	} else {
		var key []byte
		if key, err = os.ReadFile(g.KeyFile); err != nil {
			return nil, err
		}
		if c, err = google.CredentialsFromJSONWithType(ctx, key, google.ServiceAccount, g.Scopes...); err != nil {
			err = fmt.Errorf("%s: %w", g.KeyFile, err)
		}
	}
	if err != nil {
		return nil, err
	}
	return c.TokenSource.Token()
}

// fromMetadata asks the metadata server. google.ComputeTokenSource would decide once for all whether there is one, and a new machine's or pod's may
// not respond in its first seconds.
func fromMetadata(ctx context.Context, scopes []string) (*oauth2.Token, error) {
	query := url.Values{"scopes": {strings.Join(scopes, ",")}}
	text, err := metadata.GetWithContext(ctx, "instance/service-accounts/default/token?"+query.Encode())
	if err != nil {
		return nil, err
	}
	t := new(oauth2.Token)
	if err := json.Unmarshal([]byte(text), t); err != nil {
		return nil, fmt.Errorf("the metadata server's response: %w", err)
	}
	if t.ExpiresIn > 0 {
		t.Expiry = time.Now().Add(time.Duration(t.ExpiresIn) * time.Second)
	}
	return t, nil
}

func check(t *oauth2.Token) (Token, error) {
	switch {
	case t.AccessToken == "" || !bearer.MatchString(t.AccessToken):
		return Token{}, errors.New("the response contains no token that can be in a header")
	case t.Type() != "Bearer":
		return Token{}, errors.New("the token is not a bearer token")
	case t.Expiry.IsZero():
		return Token{}, errors.New("the response does not say when the token expires")
	}
	return Token{Header: "Bearer " + t.AccessToken, Expires: t.Expiry}, nil
}

// bearer matches what can stand behind "Bearer " (RFC 6750, b64token).
var bearer = regexp.MustCompile(`^[A-Za-z0-9._~+/-]+=*$`)

// reason says why there is no token. Of what a server wrote it repeats only an error code: a response may contain a token, or the assertion that
// asked for one.
func reason(err error) string {
	var refused *oauth2.RetrieveError
	var failed *metadata.Error
	var missing metadata.NotDefinedError
	switch {
	case errors.As(err, &refused):
		return fmt.Sprintf("the token endpoint responded with status %d%s", refused.Response.StatusCode, errorCode(refused.Body))
	case errors.As(err, &failed):
		return fmt.Sprintf("the metadata server responded with status %d", failed.Code)
	case errors.As(err, &missing):
		return "the metadata server knows no service account of this machine"
	}
	return foreign.ReplaceAllString(err.Error(), "$1")
}

// foreign matches what the library quotes of other responses (security token service, impersonation), which have no type of their own.
var foreign = regexp.MustCompile(`(?s)(status code \d+|\n).*`)

// errorCode returns the code in an OAuth error, such as invalid_grant, in brackets.
func errorCode(body []byte) string {
	var e struct{ Error string }
	if json.Unmarshal(body, &e) != nil || !code.MatchString(e.Error) {
		return ""
	}
	return " (" + e.Error + ")"
}

var code = regexp.MustCompile(`^[a-z_]{1,40}$`)
