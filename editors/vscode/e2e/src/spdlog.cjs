// Stands in for VS Code's logger, which is native code that would have to be compiled: logs are written as files.
'use strict';

const { appendFileSync, mkdirSync } = require('node:fs');
const { dirname } = require('node:path');

const LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'critical'];

class Logger {
  constructor(path) {
    this.path = path;
    this.level = 2;
    this.plain = false;
    LEVELS.forEach((name, level) => {
      this[name] = (text) => this.write(level, name === 'warn' ? 'warning' : name, text);
    });
  }

  write(level, name, text) {
    if (level >= this.level) {
      const time = new Date().toISOString().replace('T', ' ').replace('Z', '');
      appendFileSync(this.path, this.plain ? text : `${time} [${name}] ${text}\n`);
    }
  }

  setLevel(level) {
    this.level = level;
  }

  clearFormatters() {
    this.plain = true;
  }

  setPattern() {}
  flush() {}
  drop() {}
}

async function createRotatingLogger(_name, path) {
  mkdirSync(dirname(path), { recursive: true });
  return new Logger(path);
}

exports.Logger = Logger;
exports.setLevel = () => {};
exports.setFlushOn = () => {};
exports.createRotatingLogger = createRotatingLogger;
exports.createAsyncRotatingLogger = createRotatingLogger;
