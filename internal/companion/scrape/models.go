package scrape

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/inlet-proxy/inlet/shared/state/endpoint"
)

const (
	maxList      = 1 << 20 // bytes of a list of models
	maxModels    = 1000    // of one replica
	maxModelName = 512     // bytes
)

var errLongList = fmt.Errorf("the list of models exceeds %d KiB", maxList>>10)

// readModels parses the response to GET /v1/models in OpenAI's form. vLLM and SGLang also list the loaded LoRA adapters, with the model that
// they are made for as parent.
func readModels(text []byte) (*endpoint.Models, error) {
	var list struct {
		Data *[]struct {
			ID     string `json:"id"`
			Parent string `json:"parent"`
		} `json:"data"`
	}
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, fmt.Errorf("list of models: %w", err)
	}
	if list.Data == nil {
		return nil, fmt.Errorf("list of models: it has no data")
	}
	if n := len(*list.Data); n > maxModels {
		return nil, fmt.Errorf("list of models: %d, over %d", n, maxModels)
	}
	m := new(endpoint.Models)
	for _, entry := range *list.Data {
		switch {
		case entry.ID == "" || len(entry.ID) > maxModelName || len(entry.Parent) > maxModelName:
			return nil, fmt.Errorf("list of models: %.40q is no name", entry.ID)
		case entry.Parent != "":
			m.Adapters = append(m.Adapters, endpoint.Adapter{Name: entry.ID, Parent: entry.Parent})
		default:
			m.Names = append(m.Names, entry.ID)
		}
	}
	slices.Sort(m.Names)
	m.Names = slices.Compact(m.Names)
	slices.SortFunc(m.Adapters, func(a, b endpoint.Adapter) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Parent, b.Parent))
	})
	m.Adapters = slices.CompactFunc(m.Adapters, func(a, b endpoint.Adapter) bool { return a.Name == b.Name })
	return m, nil
}
