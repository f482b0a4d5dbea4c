package main

import (
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"
)

func post(t *testing.T, body string) (int, answer) {
	t.Helper()
	recorder := httptest.NewRecorder()
	request := httptest.NewRequest("POST", "/execute", strings.NewReader(body))
	handler([]byte("key")).ServeHTTP(recorder, request)
	var got answer
	if err := json.Unmarshal(recorder.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	return recorder.Code, got
}

func TestEachOutcome(t *testing.T) {
	if _, got := post(t, `{"input": {"customer": "ada", "amount": 250}}`); got.Output["score"] != 0.75 {
		t.Errorf("got %+v", got)
	}
	if _, got := post(t, `{"input": {"amount": 2000}}`); got.Error == nil || got.Error.Code != "LIMIT_EXCEEDED" {
		t.Errorf("got %+v", got)
	}
	if _, got := post(t, `{"input": {}}`); got.Failure == nil || got.Failure.Retryable {
		t.Errorf("got %+v", got)
	}
	if code, got := post(t, `{`); code != 400 || got.Failure == nil {
		t.Errorf("got %d %+v", code, got)
	}
}

func TestARepeatedTaskGetsTheSameAnswer(t *testing.T) {
	const body = `{"input": {"customer": "ada", "amount": 250}, "idempotencyKey": "7"}`
	_, first := post(t, body)
	_, second := post(t, body)
	if first.Output["signature"] != second.Output["signature"] {
		t.Error("it differs")
	}
}

func TestItIsHealthy(t *testing.T) {
	recorder := httptest.NewRecorder()
	handler(nil).ServeHTTP(recorder, httptest.NewRequest("GET", "/healthz", nil))
	if recorder.Code != 200 {
		t.Errorf("got %d", recorder.Code)
	}
}
