package daemon

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"ambit/admin"
	"ambit/bpf"
	"ambit/l7"
)

const (
	// maxForcings bounds those that hold at once.
	maxForcings = 16
	// rememberedFor is how long one that is over can be asked for.
	rememberedFor = time.Minute
)

// forcing is a rule in front of all others, for a while: of "ambit trace".
type forcing struct {
	rule    l7.Rule
	expires time.Time
	before  uint64 // forced spans when it began
	kept    uint64 // while it was, once it is over
	ended   time.Time
}

// forceRule makes the rule of a request.
func forceRule(name string, request *admin.ForceRequest) l7.Rule {
	r := l7.Rule{Name: name, Action: l7.RuleAction{Force: true}}
	if request.Service != "" {
		r.Match.Services = []string{request.Service}
	}
	for _, m := range request.Methods {
		r.Match.Methods = append(r.Match.Methods, strings.ToUpper(m))
	}
	p := request.Path
	switch begin, open := strings.CutSuffix(p, "/*"); {
	case p == "":
	case open:
		r.Match.Path.Prefixes = []string{begin + "/"}
	case strings.ContainsAny(p, "{}"):
		r.Match.Path.Templates = []string{p}
	default:
		r.Match.Path.Exact = []string{p}
	}
	return r
}

// force puts a rule in front of all others.
func (r *rules) force(request *admin.ForceRequest, now time.Time) (admin.Forcing, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forget(now)
	if len(r.forcings) == maxForcings {
		return admin.Forcing{}, &admin.Error{Status: http.StatusConflict, Message: fmt.Sprintf("%d requests for spans hold already; end one, or wait", maxForcings)}
	}
	f := &forcing{
		rule:    forceRule(fmt.Sprintf("trace-%d", r.forced+1), request),
		expires: now.Add(time.Duration(request.Seconds * float64(time.Second))),
	}
	if err := f.rule.Validate(); err != nil {
		return admin.Forcing{}, &admin.Error{Status: http.StatusBadRequest, Message: err.Error()}
	}
	var err error
	if f.before, err = r.forcedSpans(); err != nil {
		return admin.Forcing{}, err
	}
	before := r.forcings
	r.forcings = append([]*forcing{f}, r.forcings...)
	if err := r.apply(); err != nil {
		r.forcings = before
		return admin.Forcing{}, err
	}
	r.forced++
	return r.forcing(f)
}

func (r *rules) forcedSpans() (uint64, error) {
	all, err := r.kernel.Budgets()
	if err != nil {
		return 0, err
	}
	return all[bpf.BudgetForced].Kept, nil
}

// forcing shows one.
func (r *rules) forcing(f *forcing) (admin.Forcing, error) {
	out := admin.Forcing{
		ID: f.rule.Name, Rule: f.rule.Name, Expires: f.expires, Over: !f.ended.IsZero(), Limit: r.sampling.Forced.Budget, Kept: f.kept,
	}
	if out.Over {
		return out, nil
	}
	now, err := r.forcedSpans()
	out.Kept = now - f.before
	return out, err
}

func (r *rules) findForcing(id string) (*forcing, error) {
	for _, list := range [][]*forcing{r.forcings, r.over} {
		if at := slices.IndexFunc(list, func(f *forcing) bool { return f.rule.Name == id }); at >= 0 {
			return list[at], nil
		}
	}
	return nil, admin.NotFound(fmt.Sprintf("no request for spans is named %q", id))
}

// forcingOf tells how one fares.
func (r *rules) forcingOf(id string) (admin.Forcing, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f, err := r.findForcing(id)
	if err != nil {
		return admin.Forcing{}, err
	}
	return r.forcing(f)
}

// unforce ends one; one that is over already stays so.
func (r *rules) unforce(id string, now time.Time) (admin.Forcing, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f, err := r.findForcing(id)
	if err != nil {
		return admin.Forcing{}, err
	}
	if f.ended.IsZero() {
		before := r.forcings
		r.forcings = slices.DeleteFunc(slices.Clone(before), func(other *forcing) bool { return other == f })
		if err := r.apply(); err != nil {
			r.forcings = before
			return admin.Forcing{}, err
		}
		r.end(f, now)
	}
	return r.forcing(f)
}

// end moves one, whose rule is in force no more, to those that are over.
func (r *rules) end(f *forcing, now time.Time) {
	if spans, err := r.forcedSpans(); err == nil {
		f.kept = spans - f.before
	}
	f.ended = now
	r.over = append(r.over, f)
}

// expire takes out what has expired. It tells whether there was anything; apply is then to put the rest in force, and
// where it fails what has expired is taken out by the next apply.
func (r *rules) expire(now time.Time) bool {
	var rest []*forcing
	for _, f := range r.forcings {
		if now.Before(f.expires) {
			rest = append(rest, f)
		} else {
			r.end(f, now)
		}
	}
	expired := len(rest) != len(r.forcings)
	r.forcings = rest
	r.stale = r.stale || expired
	r.forget(now)
	return r.stale
}

// forget drops those that were over long ago.
func (r *rules) forget(now time.Time) {
	r.over = slices.DeleteFunc(r.over, func(f *forcing) bool { return now.Sub(f.ended) > rememberedFor })
}

// Force keeps the spans of some requests, until it expires.
func (d *Daemon) Force(_ context.Context, request admin.ForceRequest) (admin.Forcing, error) {
	if err := d.ready(); err != nil {
		return admin.Forcing{}, err
	}
	f, err := d.rules.force(&request, time.Now())
	if err == nil {
		d.log.Info("spans are forced", "rule", f.Rule, "service", request.Service, "path", request.Path, "until", f.Expires)
	}
	return f, err
}

// Forcing tells how that fares.
func (d *Daemon) Forcing(id string) (admin.Forcing, error) {
	if err := d.ready(); err != nil {
		return admin.Forcing{}, err
	}
	return d.rules.forcingOf(id)
}

// Unforce ends it.
func (d *Daemon) Unforce(_ context.Context, id string) (admin.Forcing, error) {
	if err := d.ready(); err != nil {
		return admin.Forcing{}, err
	}
	f, err := d.rules.unforce(id, time.Now())
	if err == nil {
		d.log.Info("spans are forced no more", "rule", f.Rule, "kept", f.Kept)
	}
	return f, err
}
