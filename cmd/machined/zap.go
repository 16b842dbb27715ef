package main

import (
	"context"
	"log/slog"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// bridge sends what the controller runtime logs, which knows zap only, to slog.
type bridge struct {
	log *slog.Logger
}

func zapLogger(log *slog.Logger) *zap.Logger { return zap.New(bridge{log}) }

// Enabled leaves out the runtime's own chatter.
func (bridge) Enabled(level zapcore.Level) bool { return level >= zapcore.InfoLevel }

// With adds fields to all that follows.
func (b bridge) With(fields []zapcore.Field) zapcore.Core {
	return bridge{slog.New(b.log.Handler().WithAttrs(attrs(fields)))}
}

// Check registers for enabled entries.
func (b bridge) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if b.Enabled(e.Level) {
		return ce.AddCore(e, b)
	}
	return ce
}

// Write logs an entry.
func (b bridge) Write(e zapcore.Entry, fields []zapcore.Field) error {
	level := slog.LevelInfo
	switch {
	case e.Level >= zapcore.ErrorLevel:
		level = slog.LevelError
	case e.Level == zapcore.WarnLevel:
		level = slog.LevelWarn
	}
	b.log.LogAttrs(context.Background(), level, e.Message, attrs(fields)...)
	return nil
}

// Sync has nothing to do.
func (bridge) Sync() error { return nil }

func attrs(fields []zapcore.Field) []slog.Attr {
	out := make([]slog.Attr, 0, len(fields))
	for _, f := range fields {
		if f.Key == "stack" || f.Type == zapcore.SkipType {
			continue
		}
		enc := zapcore.NewMapObjectEncoder()
		f.AddTo(enc)
		out = append(out, slog.Any(f.Key, enc.Fields[f.Key]))
	}
	return out
}
