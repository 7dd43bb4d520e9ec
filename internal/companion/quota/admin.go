package quota

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	_ "embed"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/inlet-proxy/inlet/filters/quota"
	"github.com/inlet-proxy/inlet/internal/companion/http1"
	"github.com/inlet-proxy/inlet/shared/contract/conf"
)

// OpenAPI describes the admin API.
//
//go:embed openapi.json
var OpenAPI []byte

// maxAdminBody bounds the body of a request to the admin API.
const maxAdminBody = 1 << 20

// Admin returns the admin API. Callers must send the bearer token in the file, which is read for each request, so that it can be replaced.
func (s *Service) Admin(tokenFile string) (http.Handler, error) {
	if _, err := http1.ReadToken(tokenFile); err != nil {
		return nil, fmt.Errorf("the admin API's token: %w", err)
	}
	a := &admin{s: s, tokenFile: tokenFile}
	return a.guard(a.routes()), nil
}

func (a *admin) routes() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/openapi.json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(OpenAPI)
	})
	entries(a, mux, "developers", "developer", func(d *Directory) *[]Developer { return &d.Developers }, (*Developer).read)
	entries(a, mux, "apps", "app", func(d *Directory) *[]App { return &d.Apps }, (*App).read)
	entries(a, mux, "products", "product", func(d *Directory) *[]Product { return &d.Products }, (*Product).read)
	entries(a, mux, "keys", "key", func(d *Directory) *[]Key { return &d.Keys }, nil)
	a.handle(mux, "POST /v1/keys", a.createKey)
	a.handle(mux, "POST /v1/keys/{name}/rotate", a.rotateKey)
	a.handle(mux, "POST /v1/keys/{name}/revoke", a.revokeKey)
	a.handle(mux, "GET /v1/accounts", a.accounts)
	a.handle(mux, "POST /v1/accounts/reset", a.resetAccount)
	a.handle(mux, "POST /v1/accounts/grant", a.grantAccount)
	return mux
}

type admin struct {
	s         *Service
	tokenFile string
	patterns  []string // of all endpoints
}

// problem is an error with its status, as the admin API reports it.
type problem struct {
	status int
	Code   string `json:"code"`
	Text   string `json:"message"`
	Fix    string `json:"fix,omitempty"`
}

func (p *problem) Error() string { return p.Text }

func fail(w http.ResponseWriter, err error) {
	var p *problem
	switch {
	case errors.As(err, &p):
	case errors.Is(err, errUnknownAccount):
		p = &problem{http.StatusNotFound, "not_found", err.Error(), "list the accounts: GET /v1/accounts, or inletctl quota usage"}
	case errors.Is(err, errChanged):
		p = &problem{http.StatusConflict, "conflict", err.Error(), "send the request again"}
	default:
		p = &problem{http.StatusServiceUnavailable, "store_failed", "the change could not be saved: " + err.Error(), "see the companion's log; send the request again when its store works"}
	}
	respond(w, p.status, map[string]*problem{"error": p})
}

func respond(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	if v == nil {
		return
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	_ = e.Encode(v) // the caller is gone if it fails
}

// guard lets only callers with the token in.
func (a *admin) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		want, err := http1.ReadToken(a.tokenFile)
		if err != nil {
			a.s.opts.Log.Error("the admin API's token cannot be read", "reason", err)
			fail(w, &problem{http.StatusServiceUnavailable, "no_token", "the admin API's token cannot be read", "see the companion's log"})
			return
		}
		scheme, got, _ := strings.Cut(req.Header.Get("Authorization"), " ")
		// Digests have one length, so that not even the token's length shows in the time.
		mine, theirs := sha256.Sum256([]byte(want)), sha256.Sum256([]byte(strings.TrimSpace(got)))
		if subtle.ConstantTimeCompare(mine[:], theirs[:]) != 1 || !strings.EqualFold(scheme, "bearer") {
			w.Header().Set("WWW-Authenticate", "Bearer")
			fail(w, &problem{http.StatusUnauthorized, "unauthorized", "the admin API's token is missing or wrong", "use the token in the companion's quota.admin.tokenFile: in the header Authorization: Bearer TOKEN, or with inletctl's --token-file"})
			return
		}
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(messageTimeout))
		req.Body = http.MaxBytesReader(w, req.Body, maxAdminBody)
		next.ServeHTTP(w, req)
	})
}

// call is one request to the admin API.
type call struct {
	*http.Request
	about []any // for the audit log
}

// handle adds an endpoint. What changes something is logged, with who, what and result, and without secrets.
func (a *admin) handle(mux *http.ServeMux, pattern string, f func(*call) (status int, body any, err error)) {
	a.patterns = append(a.patterns, pattern)
	mux.HandleFunc(pattern, func(w http.ResponseWriter, req *http.Request) {
		c := &call{Request: req}
		status, body, err := f(c)
		if req.Method != http.MethodGet {
			result := "done"
			if err != nil {
				result = err.Error()
			}
			a.s.opts.Log.Info("admin", append([]any{"action", req.Method + " " + req.URL.Path, "from", req.RemoteAddr, "result", result}, c.about...)...)
		}
		if err != nil {
			fail(w, err)
			return
		}
		respond(w, status, body)
	})
}

// entries adds the endpoints of one kind of entry. read is nil if entries cannot be sent by callers.
func entries[T named](a *admin, mux *http.ServeMux, plural, kind string, list func(*Directory) *[]T, read func(*T, *conf.Object)) {
	path := "/v1/" + plural
	one := func(req *call, d *Directory) (int, error) {
		name := req.PathValue("name")
		i := find(*list(d), name)
		if i < 0 {
			return 0, &problem{http.StatusNotFound, "not_found", fmt.Sprintf("there is no %s %q", kind, name) + suggest(name, *list(d)), "list them: GET " + path + ", or inletctl quota " + plural + " list"}
		}
		return i, nil
	}
	a.handle(mux, "GET "+path, func(*call) (int, any, error) {
		return http.StatusOK, map[string][]T{plural: append([]T{}, *list(a.s.Directory())...)}, nil
	})
	a.handle(mux, "GET "+path+"/{name}", func(req *call) (int, any, error) {
		d := a.s.Directory()
		i, err := one(req, d)
		if err != nil {
			return 0, nil, err
		}
		return http.StatusOK, (*list(d))[i], nil
	})
	a.handle(mux, "DELETE "+path+"/{name}", func(req *call) (int, any, error) {
		err := a.s.edit(req.Context(), func(d *Directory) error {
			i, err := one(req, d)
			if err != nil {
				return err
			}
			k, isKey := any((*list(d))[i]).(Key)
			*list(d) = slices.Delete(*list(d), i, i+1)
			if isKey {
				d.Keys = slices.DeleteFunc(d.Keys, func(other Key) bool { return other.isOldOf(&k) })
			}
			return nil
		})
		var p *problem
		if errors.As(err, &p) && p.Code == inconsistent {
			p.Fix = "delete or change what names it first"
		}
		return http.StatusNoContent, nil, err
	})
	if read == nil {
		return
	}
	a.handle(mux, "POST "+path, func(req *call) (int, any, error) {
		var item T
		if err := decode(req, func(o *conf.Object) {
			o.Required("name")
			read(&item, o)
		}); err != nil {
			return 0, nil, err
		}
		return http.StatusCreated, item, a.s.edit(req.Context(), func(d *Directory) error {
			if find(*list(d), item.name()) >= 0 {
				return &problem{http.StatusConflict, "exists", fmt.Sprintf("there is a %s %q already", kind, item.name()), "change it: PUT " + path + "/" + item.name() + ", or inletctl quota apply"}
			}
			*list(d) = append(*list(d), item)
			return nil
		})
	})
	a.handle(mux, "PUT "+path+"/{name}", func(req *call) (int, any, error) {
		var item T
		if err := decode(req, func(o *conf.Object) {
			o.Required("name")
			read(&item, o)
			if name := req.PathValue("name"); item.name() != name {
				o.Errorf("name", "is not the name in the path, %q; a name does not change", name)
			}
		}); err != nil {
			return 0, nil, err
		}
		return http.StatusOK, item, a.s.edit(req.Context(), func(d *Directory) error {
			i, err := one(req, d)
			if err == nil {
				(*list(d))[i] = item
			}
			return err
		})
	})
}

// decode reads a body strictly.
func decode(req *call, f func(*conf.Object)) error {
	body, err := io.ReadAll(req.Body)
	if tooLong := new(http.MaxBytesError); errors.As(err, &tooLong) {
		return &problem{http.StatusRequestEntityTooLarge, "too_large", fmt.Sprintf("the body exceeds %d bytes", maxAdminBody), ""}
	}
	if err != nil {
		return &problem{http.StatusBadRequest, "bad_body", err.Error(), ""}
	}
	if len(body) == 0 {
		body = []byte("{}")
	}
	if !json.Valid(body) {
		return &problem{http.StatusBadRequest, "bad_body", "the body is no JSON", "send a JSON object; GET /v1/openapi.json describes it"}
	}
	if err := conf.Decode(body, f); err != nil {
		return &problem{http.StatusBadRequest, "bad_body", err.Error(), "GET /v1/openapi.json describes the body"}
	}
	return nil
}

// edit changes the directory, saves it, and publishes it.
func (s *Service) edit(ctx context.Context, change func(*Directory) error) error {
	if !s.opts.Managed {
		return &problem{http.StatusConflict, "read_only", "the directory is in a file of the companion", "change the file that quota.keys names; it is read again within a second"}
	}
	s.editing.Lock()
	defer s.editing.Unlock()
	p := s.current.Load()
	d := p.directory.clone()
	if err := change(d); err != nil {
		return err
	}
	if faults := d.faults(); len(faults) > 0 {
		texts := make([]string, len(faults))
		for i, f := range faults {
			texts[i] = f.text
		}
		return &problem{http.StatusConflict, inconsistent, strings.Join(texts, "; "), "create what is missing first, or name another"}
	}
	document, _ := d.encode()
	if err := quota.CheckDocument(document); err != nil {
		return &problem{http.StatusBadRequest, "bad_entry", "proxies could not use it: " + err.Error(), "the paths are those of the whole directory"}
	}
	if len(document) > maxDirectory {
		return &problem{http.StatusConflict, "full", fmt.Sprintf("the directory would exceed %d bytes", maxDirectory), "delete keys that are revoked or have expired"}
	}
	if err := s.opts.Store.SetDirectory(ctx, p.saved, document); err != nil {
		return err
	}
	s.publish(d, document)
	return nil
}

// inconsistent is the code of a change after which an entry would name one that is not there.
const inconsistent = "inconsistent"

// maxDirectory bounds the directory: it goes to every proxy as a whole, and is read as strictly as a configuration, which is bounded too.
const maxDirectory = conf.MaxBytes

// newKey returns a key that nobody can guess, and its digest.
func newKey() (key, digest string) {
	var b [32]byte
	_, _ = rand.Read(b[:]) // it never fails
	key = "sk-" + base64.RawURLEncoding.EncodeToString(b[:])
	sum := sha256.Sum256([]byte(key))
	return key, hex.EncodeToString(sum[:])
}

// newKeyBody is the response that shows a key, this once.
type newKeyBody struct {
	Key
	Secret string `json:"key"`
}

func (a *admin) createKey(req *call) (int, any, error) {
	var k Key
	if err := decode(req, func(o *conf.Object) {
		o.Required("name")
		k.readRest(o)
	}); err != nil {
		return 0, nil, err
	}
	var secret string
	secret, k.SHA256 = newKey()
	err := a.s.edit(req.Context(), func(d *Directory) error {
		if find(d.Keys, k.Name) >= 0 {
			return &problem{http.StatusConflict, "exists", fmt.Sprintf("there is a key %q already", k.Name), "replace it: POST /v1/keys/" + k.Name + "/rotate, or inletctl quota keys rotate " + k.Name}
		}
		for _, other := range d.Keys {
			if isNumberOf(k.Name, other.Name) || isNumberOf(other.Name, k.Name) {
				return &problem{http.StatusConflict, "name", fmt.Sprintf("of the keys %q and %q one would look like what a rotation leaves of the other", k.Name, other.Name), "take another name"}
			}
		}
		d.Keys = append(d.Keys, k)
		return nil
	})
	return http.StatusCreated, newKeyBody{k, secret}, err
}

// ofKey finds the key that a request names.
func ofKey(req *call, d *Directory) (*Key, error) {
	name := req.PathValue("name")
	i := find(d.Keys, name)
	if i < 0 {
		return nil, &problem{http.StatusNotFound, "not_found", fmt.Sprintf("there is no key %q", name) + suggest(name, d.Keys), "list them: GET /v1/keys, or inletctl quota keys list"}
	}
	return &d.Keys[i], nil
}

// maxOverlap bounds how long an old key is valid beside its successor.
const maxOverlap = 90 * 24 * time.Hour

// rotateKey gives a key a new secret. The old one stays valid for the overlap, as a key with another name.
func (a *admin) rotateKey(req *call) (int, any, error) {
	var overlap time.Duration
	if err := decode(req, func(o *conf.Object) { o.Duration("overlap", &overlap, 0, maxOverlap) }); err != nil {
		return 0, nil, err
	}
	body := newKeyBody{}
	now := a.s.opts.Now()
	err := a.s.edit(req.Context(), func(d *Directory) error {
		k, err := ofKey(req, d)
		if err == nil {
			err = d.mayRotate(k, now)
		}
		if err != nil {
			return err
		}
		old := *k
		body.Secret, k.SHA256 = newKey()
		if overlap > 0 {
			d.shareApp(k)
			err = d.keepOld(old, k.App, now.Add(overlap).UTC().Truncate(time.Second))
		}
		body.Key = d.Keys[find(d.Keys, old.Name)]
		return err
	})
	return http.StatusOK, body, err
}

// mayRotate refuses to give a secret to a key with which nothing could be called.
func (d *Directory) mayRotate(k *Key, now time.Time) error {
	const fix = "make another key with POST /v1/keys, or delete this one first"
	if k.Status == Revoked {
		return &problem{http.StatusConflict, "revoked", fmt.Sprintf("key %q is revoked: a new secret would not be valid either", k.Name), fix}
	}
	if k.Expires != nil && !now.Before(*k.Expires) {
		return &problem{http.StatusConflict, "expired", fmt.Sprintf("key %q has expired: a new secret would not be valid either", k.Name), fix}
	}
	if i := strings.LastIndexByte(k.Name, '.'); i > 0 {
		if of := find(d.Keys, k.Name[:i]); of >= 0 && k.isOldOf(&d.Keys[of]) {
			return &problem{http.StatusConflict, "old", fmt.Sprintf("key %q is what a rotation left of %q", k.Name, k.Name[:i]), "rotate that one"}
		}
	}
	return nil
}

// shareApp makes the application of a key that names none one that another key can name too. It has the name of the key already, and so
// the same counters.
func (d *Directory) shareApp(k *Key) {
	if k.App != "" {
		return
	}
	if k.App = k.Name; find(d.Apps, k.App) < 0 {
		d.Apps = append(d.Apps, App{Name: k.App, Status: Approved})
	}
}

// keepOld keeps the secret of a key that was rotated valid for a while, as a key of the same application.
func (d *Directory) keepOld(old Key, app string, until time.Time) error {
	of := old.Name
	old.App = app
	if old.Expires == nil || old.Expires.After(until) {
		old.Expires = &until
	}
	for n := 1; ; n++ {
		if old.Name = fmt.Sprintf("%s.%d", of, n); find(d.Keys, old.Name) < 0 {
			break
		}
	}
	if text := isName(old.Name); text != "" {
		return &problem{http.StatusConflict, "name", fmt.Sprintf("the old key's name would be %q, which %s", old.Name, text), "rotate without an overlap"}
	}
	d.Keys = append(d.Keys, old)
	return nil
}

// isNumberOf reports whether a name is one that a rotation of another key gives.
func isNumberOf(name, of string) bool {
	number, ok := strings.CutPrefix(name, of+".")
	return ok && number != "" && strings.Trim(number, "0123456789") == ""
}

// isOldOf reports whether a key is what a rotation left of another one.
func (k *Key) isOldOf(of *Key) bool {
	return isNumberOf(k.Name, of.Name) && k.App == of.App && k.App != "" && k.Expires != nil
}

// revokeKey revokes a key, and what rotations left of it.
func (a *admin) revokeKey(req *call) (int, any, error) {
	var body Key
	if err := decode(req, func(*conf.Object) {}); err != nil {
		return 0, nil, err
	}
	err := a.s.edit(req.Context(), func(d *Directory) error {
		k, err := ofKey(req, d)
		if err != nil {
			return err
		}
		k.Status = Revoked
		body = *k
		for i := range d.Keys {
			if d.Keys[i].isOldOf(&body) {
				d.Keys[i].Status = Revoked
			}
		}
		return nil
	})
	return http.StatusOK, body, err
}

// accounts lists counters.
func (a *admin) accounts(req *call) (int, any, error) {
	limit := 1000
	if text := req.URL.Query().Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > 10_000 {
			return 0, nil, &problem{http.StatusBadRequest, "bad_query", fmt.Sprintf("limit: %q is not a number from 1 to 10000", text), ""}
		}
		limit = n
	}
	list, all, err := a.s.opts.Store.Counters(req.Context(), req.URL.Query().Get("contains"), limit)
	return http.StatusOK, map[string]any{"accounts": append([]Counter{}, list...), "total": all}, err
}

func (a *admin) resetAccount(req *call) (int, any, error) {
	var name string
	if err := decode(req, func(o *conf.Object) {
		o.Required("account")
		o.String("account", &name, conf.NotEmpty)
	}); err != nil {
		return 0, nil, err
	}
	req.about = []any{"account", name}
	c, err := a.s.opts.Store.Credit(req.Context(), name, 0, true)
	return http.StatusOK, c, err
}

func (a *admin) grantAccount(req *call) (int, any, error) {
	var name string
	var amount int
	if err := decode(req, func(o *conf.Object) {
		o.Required("account", "amount")
		o.String("account", &name, conf.NotEmpty)
		o.Int("amount", &amount, 1, 1<<53-1)
	}); err != nil {
		return 0, nil, err
	}
	req.about = []any{"account", name, "amount", amount}
	c, err := a.s.opts.Store.Credit(req.Context(), name, int64(amount), false)
	return http.StatusOK, c, err
}
