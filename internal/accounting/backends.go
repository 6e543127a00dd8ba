package accounting

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"example.org/mediaproxy/internal/config"
)

// backends are all that can be named in accounting, section [Dispatcher].
var backends = map[string]func(*config.Config, *slog.Logger) (Backend, error){
	"radius":  func(c *config.Config, _ *slog.Logger) (Backend, error) { return newRadius(c) },
	"webhook": func(c *config.Config, _ *slog.Logger) (Backend, error) { return newWebhook(c.Webhook) },
}

// Open makes the back-ends with these names. A receiver that is away now is no error.
func Open(names []string, c *config.Config, log *slog.Logger) (map[string]Backend, error) {
	opened := map[string]Backend{}
	for _, name := range names {
		open := backends[name]
		if open == nil {
			return nil, fmt.Errorf("there is no back-end %q; there are %s", name, strings.Join(slices.Sorted(maps.Keys(backends)), ", "))
		}
		b, err := open(c, log)
		if err != nil {
			return nil, fmt.Errorf("accounting by %s: %w", name, err)
		}
		opened[name] = b
	}
	return opened, nil
}
