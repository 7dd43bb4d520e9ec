package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/inlet-proxy/inlet/internal/convert"
)

func convertCommand() *cobra.Command {
	var to string
	cmd := &cobra.Command{
		Use:   "convert FILE...",
		Short: "Convert manifests of the Gateway API Inference Extension",
		Long: `Reads manifests for Kubernetes and prints what they mean to Inlet: InferencePools of v1alpha2 as those of v1; the models of InferenceModel and
InferenceModelRewrite, and the objectives of InferenceObjective and of InferenceModel's criticality, as a chain's configuration; and all pools as those of
the companion. What has no counterpart is left out, and said on stderr.

A file may also be what "kubectl get inferencepools,inferencemodels -A -o yaml" prints. Nothing is read but the files, and nothing is applied. "-" is the standard input.`,
		Example: `  inletctl convert legacy.yaml | kubectl apply --server-side -f -
  inletctl convert --to chain legacy.yaml > inlet.yaml
  inletctl convert --to companion - < legacy.yaml`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return fmt.Errorf("which file?")
			}
			return nil
		},
		RunE: faults(func(cmd *cobra.Command, files []string) error {
			part := map[string]func(*convert.Result) []byte{
				"manifests": func(r *convert.Result) []byte { return r.Manifests },
				"chain":     func(r *convert.Result) []byte { return r.Chain },
				"companion": func(r *convert.Result) []byte { return r.Companion },
			}[to]
			if part == nil {
				return usageError{fmt.Errorf("--to=%s: it is manifests, chain or companion", to)}
			}
			var texts [][]byte
			for _, file := range files {
				text, err := readInput(cmd, file)
				if err != nil {
					return err
				}
				texts = append(texts, text)
			}
			r, err := convert.Convert(texts...)
			if err != nil {
				return err
			}
			for _, note := range r.Notes {
				fmt.Fprintln(cmd.ErrOrStderr(), "note:", note)
			}
			_, err = cmd.OutOrStdout().Write(part(r))
			return err
		}),
	}
	cmd.Flags().StringVar(&to, "to", "manifests", "what to print: manifests, chain or companion")
	return cmd
}
