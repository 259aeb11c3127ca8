// Lines of the server's standard error, for the log that the editor shows.

export interface LogLine {
  readonly level: 'error' | 'warn' | 'info';
  readonly text: string;
}

const LINE = /^\d{4}-\d\d-\d\dT\S+\s+(ERROR|WARN|INFO|DEBUG|TRACE)\s+(.*)$/;

/**
 * The editor's log has a time of its own, and hides what is below its level. The setting `gemma.logLevel`
 * alone is to say what the server logs: what is finer than "info" is therefore shown as that.
 */
export function parseLogLine(line: string): LogLine {
  const [, level, text] = LINE.exec(line) ?? [];
  switch (level) {
    case undefined:
      return { level: 'info', text: line };
    case 'ERROR':
      return { level: 'error', text: text ?? '' };
    case 'WARN':
      return { level: 'warn', text: text ?? '' };
    case 'INFO':
      return { level: 'info', text: text ?? '' };
    default:
      return { level: 'info', text: `${level.toLowerCase()}: ${text ?? ''}` };
  }
}
