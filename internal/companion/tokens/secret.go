package tokens

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// CheckFile says what is wrong with the name of a secret's file, in Envoy's eyes: it tells JSON and YAML by the name's end.
func CheckFile(name string) string {
	if !strings.HasSuffix(name, ".json") && !strings.HasSuffix(name, ".yaml") {
		return "does not end in .json or .yaml, by which Envoy knows what is in it"
	}
	return ""
}

// secret returns the file that Envoy reads: a DiscoveryResponse with one generic secret, in JSON, which is YAML too.
func secret(name, value string) []byte {
	type object = map[string]any
	text, err := json.MarshalIndent(object{"resources": []any{object{
		"@type":          "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
		"name":           name,
		"generic_secret": object{"secret": object{"inline_string": value}},
	}}}, "", " ")
	if err != nil {
		panic(err) // maps of strings have a JSON form
	}
	return append(text, '\n')
}

// replace replaces a file by rename, so that no reader sees half of it and Envoy notices. Nobody but this user can read it.
func replace(file string, content []byte) (err error) {
	// One name, so that what a crash leaves behind is removed by the next write.
	temp := filepath.Join(filepath.Dir(file), "."+filepath.Base(file)+".new")
	if err := os.Remove(temp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(temp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(temp)
		}
	}()
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(temp, file)
}

// CheckFolder reports that a secret's file cannot be written into its folder.
func CheckFolder(file string) error {
	f, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+".check-*")
	if err != nil {
		return fmt.Errorf("cannot write the file of the secret: %w", err)
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}
