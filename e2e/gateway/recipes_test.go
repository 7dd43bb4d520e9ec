package gateway

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// recipeObjects are what a folder of envoy/gateway/recipes installs.
func recipeObjects(t *testing.T, name string) []object {
	t.Helper()
	folder := filepath.Join(root(t), "envoy", "gateway", "recipes", name)
	all := rendered(t, "chart", chartFolder, "inlet", filepath.Join(folder, "values.yaml"))
	if text, err := os.ReadFile(filepath.Join(folder, "more.yaml")); err == nil {
		all = append(all, documents(t, text)...)
	}
	return all
}

// recipe serves a folder of envoy/gateway/recipes.
func recipe(t *testing.T, name string, services ...service) *running {
	t.Helper()
	return start(t, recipeObjects(t, name), services)
}

func TestRecipePriorityAndFallback(t *testing.T) {
	r := recipe(t, "priority-and-fallback", service{"llama", 1, nil}, service{"shared", 1, nil}, service{"small", 1, nil})
	r.knows(t, "llama")
	for _, pool := range []string{"llama", "shared", "small"} {
		r.until(t, "serving llama from "+pool, func() bool {
			got := r.get(t, "llama")
			return got.status == http.StatusOK && strings.HasPrefix(got.header.Get("x-modelsim-replica"), pool+"-")
		})
		if got := r.chat(t, "llama", "Hello"); r.picked(t, got) != pool+"-1" || got.header.Get("x-modelsim-model") != "llama-3-8b" {
			t.Errorf("of pool %s: %d from %s, asked for %s", pool, got.status, got.header.Get("x-modelsim-replica"), got.header.Get("x-modelsim-model"))
		}
		r.replicas[pool][0].Kill() // and so on with the next pool
	}
	r.until(t, "refusing", func() bool {
		got := r.get(t, "llama")
		return got.status == http.StatusServiceUnavailable && got.header.Get("retry-after") != "" && strings.Contains(got.body, `"error"`)
	})
}

func TestRecipeSplitAndScreening(t *testing.T) {
	r := recipe(t, "split-and-screening", service{"llama", 2, []string{"--model", "llama-3-8b"}},
		service{"llama-hosted", 1, []string{"--model", "meta/llama-3-8b"}}, service{"gemma", 2, []string{"--model", "gemma-7b", "--lora", "lora-1-gemma", "--lora", "lora-2-gemma", "--max-loras", "2"}})
	r.knows(t, "gemma")
	r.serves(t, "llama")
	t.Run("split", func(t *testing.T) {
		const requests = 200
		hosted := 0
		for i := range requests {
			session := []string{"x-session-id", fmt.Sprint(i)}
			got := r.chat(t, "llama", "Hello", session...)
			if got.status != http.StatusOK {
				t.Fatalf("%d %s", got.status, got.body)
			}
			replica, model := got.header.Get("x-modelsim-replica"), got.header.Get("x-modelsim-model")
			if replica == "llama-hosted-1" {
				hosted++
				if model != "meta/llama-3-8b" || !strings.Contains(got.header.Get("x-modelsim-headers"), "authorization") || !strings.Contains(got.body, `"model":"llama"`) {
					t.Errorf("the hosted service was asked for %s with %s: %s", model, got.header.Get("x-modelsim-headers"), got.body)
				}
			} else if model != "llama-3-8b" {
				t.Errorf("%s was asked for %s", replica, model)
			}
			if i%20 == 0 { // a session stays
				again := r.chat(t, "llama", "Hello again", session...).header.Get("x-modelsim-replica")
				if (again == "llama-hosted-1") != (replica == "llama-hosted-1") {
					t.Errorf("session %d was at %s, and then at %s", i, replica, again)
				}
			}
		}
		if hosted < requests*4/100 || hosted > requests*18/100 { // the sessions are always the same, and so is the number
			t.Errorf("%d of %d requests went to the hosted service, want about 10 %%", hosted, requests)
		}
	})
	t.Run("adapters", func(t *testing.T) {
		for _, name := range []string{"lora-1-gemma", "lora-2-gemma"} {
			got := r.chat(t, name, "Hello")
			if replica := r.picked(t, got); got.status != http.StatusOK || !strings.HasPrefix(replica, "gemma-") || got.header.Get("x-modelsim-model") != name {
				t.Errorf("%s: %d from %q", name, got.status, replica)
			}
		}
	})
	t.Run("screened", func(t *testing.T) {
		for _, model := range []string{"llama", "lora-1-gemma"} {
			say := base64.StdEncoding.EncodeToString([]byte("The card is 4111 1111 1111 1111."))
			if got := r.chat(t, model, "Which card?", "x-modelsim-say", say); !strings.Contains(got.body, "The card is [CARD].") {
				t.Errorf("%s: the response says %s", model, got.body)
			}
			if got := r.chat(t, model, "I am jane@example.com.", "x-modelsim-echo", "prompt"); !strings.Contains(got.body, "[EMAIL]") || strings.Contains(got.body, "jane@") {
				t.Errorf("%s: the replica got %s", model, got.body)
			}
		}
	})
}

func TestRecipeAPIManagement(t *testing.T) {
	r := recipe(t, "api-management", standard...)
	key := []string{"x-api-key", "sample-key"}
	r.serves(t, "llama", key...)
	const fault = `"fault"`
	for name, c := range map[string]struct {
		model   string
		headers []string
		status  int
		says    string
	}{
		"without a key":   {"llama", nil, http.StatusUnauthorized, fault},
		"an unknown key":  {"llama", []string{"x-api-key", "other"}, http.StatusUnauthorized, fault},
		"slashes":         {"/gcs/google/gemma-3-1b-it", key, http.StatusOK, "choices"},
		"not in product":  {"/gcs/google/gemma-3-1b-it", []string{"x-api-key", "trial-key"}, http.StatusForbidden, fault},
		"of another name": {"unknown", key, http.StatusNotFound, ""},
	} {
		if got := r.chat(t, c.model, "Hello", c.headers...); got.status != c.status || !strings.Contains(got.body, c.says) {
			t.Errorf("%s: %d %s, want %d with %s", name, got.status, got.body, c.status, c.says)
		}
	}
	if got := r.send(t, http.MethodPost, "/v1/embeddings", `{"model":"llama","input":"x"}`, key...); got.status != http.StatusForbidden {
		t.Errorf("an operation that the product does not have: %d %s", got.status, got.body)
	}
	served := 0
	var last reply
	for last = r.chat(t, "llama", "Hello", "x-api-key", "trial-key"); last.status == http.StatusOK && served < 10; last = r.chat(t, "llama", "Hello", "x-api-key", "trial-key") {
		served++
	}
	if served != 3 && served != 6 || last.status != http.StatusTooManyRequests || !strings.Contains(last.body, "policies.ratelimit.QuotaViolation") || last.header.Get("retry-after") == "" {
		t.Errorf("3 a minute: %d served, then %d %v %s", served, last.status, last.header, last.body) // 6 across the end of a minute
	}
}

func TestRecipeTwoClusters(t *testing.T) {
	r := recipe(t, "two-clusters", service{"llama", 2, nil}, service{"other-cluster", 1, nil})
	r.knows(t, "llama")
	for range 10 {
		if got := r.chat(t, "llama", "Hello"); !strings.HasPrefix(r.picked(t, got), "llama-") {
			t.Errorf("with replicas of its own: %d from %s", got.status, got.header.Get("x-modelsim-replica"))
		}
	}
	r.replicas["llama"][0].Kill()
	r.until(t, "serving from the replica that is left", func() bool { return r.get(t, "llama").header.Get("x-modelsim-replica") == "llama-2" })
	r.replicas["llama"][1].Kill()
	r.until(t, "spilling over", func() bool { return r.get(t, "llama").header.Get("x-modelsim-replica") == "other-cluster-1" })
	if got := r.chat(t, "llama", "Hello"); got.status != http.StatusOK || got.header.Get("x-modelsim-model") != "llama-here" {
		t.Errorf("the other cluster was asked for %s: %d", got.header.Get("x-modelsim-model"), got.status)
	}
	if got := r.chat(t, "llama-here", "Hello"); got.status != http.StatusServiceUnavailable {
		t.Errorf("what comes from the other cluster: %d from %s", got.status, got.header.Get("x-modelsim-replica"))
	}
}
