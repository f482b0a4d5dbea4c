// Lints the diagrams that arrive on standard input as JSON, [{"name": ..., "xml": ...}], with the packages installed in
// the working directory. Prints one line for each report; ends with 1 when one of them is an error or a warning.

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';

const require = createRequire(join(process.cwd(), 'package.json'));

const { BpmnModdle } = require('bpmn-moddle');
const Linter = require('bpmnlint/lib/linter');
const NodeResolver = require('bpmnlint/lib/resolver/node-resolver');
const { is, isAny } = require('bpmnlint-utils');

// README.md says why flows from start events do not count.
const fakeJoin = () => ({
  check(node, reporter) {
    if (!isAny(node, ['bpmn:Activity', 'bpmn:Event'])) {
      return;
    }

    const incoming = node.incoming ?? [];

    if (incoming.length > 1 && !incoming.every(flow => is(flow.sourceRef, 'bpmn:StartEvent'))) {
      reporter.report(node.id, 'Incoming flows do not join');
    }
  },
});

class Resolver extends NodeResolver {
  resolveRule(pkg, name) {
    return pkg === 'bpmnlint-plugin-prokos' && name === 'fake-join' ? fakeJoin : super.resolveRule(pkg, name);
  }
}

const oneLine = text => text.replace(/\s+/g, ' ');

async function lint(xml) {
  let parsed;

  try {
    parsed = await moddle.fromXML(xml);
  } catch (error) {
    return [{ id: '-', rule: 'xml', message: oneLine(error.message), category: 'error' }];
  }

  const unread = parsed.warnings.map(({ element, message }) => ({
    id: element?.id ?? '-',
    rule: 'xml',
    message: oneLine(message),
    category: 'error',
  }));

  // Some rules remember what they saw, so each diagram gets a linter of its own.
  const results = await new Linter({ config, resolver }).lint(parsed.rootElement);
  const reports = Object.entries(results).flatMap(
    ([rule, found]) => found.map(report => ({ ...report, rule })));

  return [...unread, ...reports];
}

const config = JSON.parse(readFileSync(new URL('.bpmnlintrc', import.meta.url), 'utf8'));
const moddle = new BpmnModdle({ zeebe: require('zeebe-bpmn-moddle/resources/zeebe.json') });
const resolver = new Resolver({ require });

for (const { name, xml } of JSON.parse(readFileSync(0, 'utf8'))) {
  for (const { id, rule, message, category } of await lint(xml)) {
    console.log(`${name}:${id}: ${rule}: ${message} (${category})`);

    if (category !== 'info') {
      process.exitCode = 1;
    }
  }
}
