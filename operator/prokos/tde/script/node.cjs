// Runs a user's Node script: `node node.cjs SCRIPT [ARGUMENT...]`. Node's own modules only.
//
// A CommonJS script defines `main(input)`, or exports it; an ES module exports `main` or a default function. What it
// returns, or what its promise becomes, is the result. `BusinessError`, `RetryableFailure` and `FatalFailure` are there
// without an import. A script without such a function writes the files of the contract itself.
"use strict";

const fs = require("node:fs");
const { randomUUID } = require("node:crypto");
const { createRequire } = require("node:module");
const path = require("node:path");
const { pathToFileURL } = require("node:url");
const vm = require("node:vm");

const EX_CONFIG = 78; // a failure that no further attempt can mend; from sysexits.h

class Reported extends Error {
  constructor(message, report) {
    super(message);
    this.report = { message, ...report };
  }
}

globalThis.BusinessError = class BusinessError extends Reported {
  constructor(code, message = "", variables = {}) {
    super(message, { code, variables });
  }
};
globalThis.RetryableFailure = class RetryableFailure extends Reported {
  constructor(message, retryAfterSeconds = null) {
    super(message, { retryAfterSeconds });
  }
};
globalThis.FatalFailure = class FatalFailure extends Reported {
  constructor(message) {
    super(message, { fatal: true });
  }
};

// JavaScript's numbers hold integers up to 2^53. Larger ones are BigInt here, so that they arrive and leave unchanged.
// They travel through JSON.parse and JSON.stringify as strings that no data can contain.
const mark = `integer ${randomUUID()} `;
const token = /"[^"\\]*(?:\\.[^"\\]*)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;
const isUnsafe = (text) => /^-?\d{16,}$/.test(text) && !Number.isSafeInteger(Number(text));

function parse(text) {
  if (!/\d{16}/.test(text)) return JSON.parse(text);
  const marked = text.replace(token, (found) => (isUnsafe(found) ? `"${mark}${found}"` : found));
  const revive = (_, value) =>
    typeof value === "string" && value.startsWith(mark) ? BigInt(value.slice(mark.length)) : value;
  return JSON.parse(marked, revive);
}

function stringify(value, what) {
  let integers = false;
  const replace = (key, item) => {
    if (typeof item === "bigint") {
      integers = true;
      return mark + item;
    }
    if (typeof item === "number" && !Number.isFinite(item)) {
      throw new TypeError(`${key === "" ? "it" : JSON.stringify(key)} is ${item}`); // it would become null
    }
    return item;
  };
  let text;
  try {
    text = JSON.stringify(value, replace);
  } catch (error) {
    throw new FatalFailure(`the script's ${what} cannot be written as JSON: ${error.message}`);
  }
  if (text === undefined) throw new FatalFailure(`the script's ${what} is a ${typeof value}, which JSON cannot hold`);
  return integers ? text.replace(new RegExp(`"${mark}(-?\\d+)"`, "g"), "$1") : text;
}

// A script that is no file of its own has no extension; whether it is an ES module is for us to find out.
async function load(file) {
  const inline = path.extname(file) === "";
  const module = { exports: {} };
  const body = compile(fs.readFileSync(file, "utf8"), inline ? "script.js" : file);
  if (body) {
    const main = body(module.exports, createRequire(file), module, file, path.dirname(file));
    return main ?? (typeof module.exports === "function" ? module.exports : module.exports.main);
  }
  if (inline) fs.copyFileSync(file, `${file}.mjs`);
  try {
    const exported = await import(pathToFileURL(inline ? `${file}.mjs` : file).href);
    return exported.main ?? exported.default;
  } catch (error) {
    throw error instanceof SyntaxError ? Object.assign(error, { compiling: true }) : error;
  }
}

// The script as a function of what CommonJS gives a module; null if it is an ES module.
function compile(source, filename) {
  if (filename.endsWith(".mjs")) return null;
  const options = { filename };
  const loader = vm.constants?.USE_MAIN_CONTEXT_DEFAULT_LOADER; // since Node 20.12; without it there is no import()
  if (loader) options.importModuleDynamically = loader;
  try {
    // The addition has a line of its own: the script's last one may be a comment.
    const body = `${source}\n;return typeof main === "function" ? main : undefined`;
    return vm.compileFunction(body, ["exports", "require", "module", "__filename", "__dirname"], options);
  } catch (error) {
    if (/^\s*(?:import|export)\b|\bawait\b/m.test(source)) return null;
    throw Object.assign(error, { compiling: true });
  }
}

function fail(error) {
  if (!(error instanceof Reported)) {
    process.stderr.write(`${error instanceof Error ? error.stack : `thrown: ${String(error)}`}\n`);
    process.exit(error?.compiling ? EX_CONFIG : 1);
  }
  let text;
  try {
    text = stringify(error.report, "error");
  } catch (worse) {
    text = JSON.stringify(worse.report);
  }
  fs.writeFileSync(process.env.PROKOS_ERROR, text);
  process.exit(1);
}

async function run() {
  process.argv.splice(1, 1); // as if the script had been called
  const main = await load(process.argv[1]);
  if (typeof main !== "function") return;
  const result = await main(parse(fs.readFileSync(process.env.PROKOS_INPUT, "utf8")));
  if (result !== undefined && result !== null) {
    fs.writeFileSync(process.env.PROKOS_OUTPUT, stringify(result, "result"));
  }
  process.exit();
}

// Else Node writes to a pipe when it finds time, and process.exit() drops what is left.
for (const stream of [process.stdout, process.stderr]) stream._handle?.setBlocking?.(true);
process.on("uncaughtException", fail);
run().catch(fail);
