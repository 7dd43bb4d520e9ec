package sim

import (
	"encoding/json"
	"net/http"
)

// modelCard is one entry of /v1/models in vLLM's form; an adapter has its base model as parent.
type modelCard struct {
	ID          string            `json:"id"`
	Object      string            `json:"object"`
	Created     int64             `json:"created"`
	OwnedBy     string            `json:"owned_by"`
	Root        string            `json:"root"`
	Parent      *string           `json:"parent"`
	MaxModelLen *int              `json:"max_model_len"`
	Permission  []modelPermission `json:"permission"`
}

type modelPermission struct {
	ID                 string  `json:"id"`
	Object             string  `json:"object"`
	Created            int64   `json:"created"`
	AllowCreateEngine  bool    `json:"allow_create_engine"`
	AllowSampling      bool    `json:"allow_sampling"`
	AllowLogprobs      bool    `json:"allow_logprobs"`
	AllowSearchIndices bool    `json:"allow_search_indices"`
	AllowView          bool    `json:"allow_view"`
	AllowFineTuning    bool    `json:"allow_fine_tuning"`
	Organization       string  `json:"organization"`
	Group              *string `json:"group"`
	IsBlocking         bool    `json:"is_blocking"`
}

// models responds to /v1/models: the base model under all its names, then the adapters.
func (s *Server) models(x *exchange) {
	card := func(id string) modelCard {
		return modelCard{ID: id, Object: "model", Created: s.created, OwnedBy: "vllm", Root: s.cfg.Models[0], Permission: []modelPermission{{
			ID: "modelperm-" + id, Object: "model_permission", Created: s.created,
			AllowSampling: true, AllowLogprobs: true, AllowView: true, Organization: "*",
		}}}
	}
	list := struct {
		Object string      `json:"object"`
		Data   []modelCard `json:"data"`
	}{Object: "list"}
	for _, name := range s.cfg.Models {
		base := card(name)
		base.MaxModelLen = &s.cfg.MaxModelLen
		list.Data = append(list.Data, base)
	}
	for _, name := range s.cfg.LoRAs {
		adapter := card(name)
		adapter.Root = "/adapters/" + name
		adapter.Parent = &s.cfg.Models[0]
		list.Data = append(list.Data, adapter)
	}
	body, err := json.Marshal(list)
	if err != nil {
		panic(err) // strings and numbers always marshal
	}
	x.answer(http.StatusOK, "application/json", body)
}
