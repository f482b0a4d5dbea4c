// An executor of type container that is not written in Python: it scores a payment.
//
// The contract is docs/executors/container.openapi.yaml: GET /healthz, POST /execute.
package main

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// Most that one payment may be.
const limit = 1000.0

type attempt struct {
	Input struct {
		Customer string   `json:"customer"`
		Amount   *float64 `json:"amount"`
	} `json:"input"`
	IdempotencyKey string `json:"idempotencyKey"`
}

type businessError struct {
	Code      string         `json:"code"`
	Message   string         `json:"message"`
	Variables map[string]any `json:"variables"`
}

type failure struct {
	Message   string `json:"message"`
	Retryable bool   `json:"retryable"`
}

// One of the three is set.
type answer struct {
	Output  map[string]any `json:"output,omitempty"`
	Error   *businessError `json:"error,omitempty"`
	Failure *failure       `json:"failure,omitempty"`
}

// score depends on its input alone, so a task that comes again gets the same answer and does no harm.
func score(task attempt, key []byte) answer {
	if task.Input.Amount == nil || *task.Input.Amount < 0 {
		return answer{Failure: &failure{Message: "the input needs an amount that is not negative"}}
	}
	amount := *task.Input.Amount
	if amount > limit {
		return answer{Error: &businessError{
			Code:      "LIMIT_EXCEEDED",
			Message:   fmt.Sprintf("%g is more than %g", amount, limit),
			Variables: map[string]any{"limit": limit},
		}}
	}
	value := 1 - amount/limit
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s:%.3f", task.Input.Customer, value)
	return answer{Output: map[string]any{"score": value, "signature": hex.EncodeToString(mac.Sum(nil))}}
}

func handler(key []byte) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("POST /execute", func(w http.ResponseWriter, r *http.Request) {
		var task attempt
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewDecoder(r.Body).Decode(&task); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			json.NewEncoder(w).Encode(answer{Failure: &failure{Message: err.Error()}})
			return
		}
		json.NewEncoder(w).Encode(score(task, key))
	})
	return mux
}

func main() {
	key := os.Getenv("SIGNING_KEY")
	if key == "" {
		log.Fatal("SIGNING_KEY is not set")
	}
	// Only the worker in the same pod is served.
	server := &http.Server{Addr: "127.0.0.1:8080", Handler: handler([]byte(key)), ReadHeaderTimeout: 5 * time.Second}
	stopped, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	go func() {
		<-stopped.Done()
		// The worker ends its tasks first; what runs then is answered.
		server.Shutdown(context.Background())
	}()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
}
