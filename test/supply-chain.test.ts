/** What comes with the program, and what must not: licences and known holes of its dependencies, secrets in the repository. */
import {readFile} from 'node:fs/promises';
import path from 'node:path';
import {describe, expect, test} from '@jest/globals';
import {execa} from 'execa';

const root = path.resolve(import.meta.dirname, '..');

describe('a dependency of the program', () => {
  /** Each lets the program be given away under the MIT license. */
  const allowed = ['0BSD', 'Apache-2.0', 'BlueOak-1.0.0', 'BSD-2-Clause', 'BSD-3-Clause', 'CC0-1.0', 'ISC', 'MIT'];

  /** Of an SPDX expression without nested parentheses: a choice, or all of them together. */
  function isAllowed(license: string): boolean {
    const expression = license.replace(/^\((.*)\)$/, '$1');
    if (expression.includes(' OR ')) return expression.split(' OR ').some(isAllowed);
    return expression.split(' AND ').every((name) => allowed.includes(name));
  }

  interface Component {
    name: string;
    licenses?: {license?: {id?: string; name?: string}; expression?: string}[];
  }

  /** Packages of which something is in the program, as the build lists them. */
  async function shipped(): Promise<Component[]> {
    return JSON.parse(await readFile(path.join(root, 'dist/sbom.cdx.json'), 'utf8')).components;
  }

  test('has a licence that is allowed', async () => {
    const components = await shipped();
    expect(components.length).toBeGreaterThan(10);
    const named = components.map(({name, licenses = []}) => ({
      name,
      licenses: licenses.map(({expression, license}) => expression ?? license?.id ?? license?.name ?? 'none'),
    }));
    const refused = named.filter(({licenses}) => licenses.length === 0 || !licenses.every(isAllowed));
    expect(refused).toEqual([]);
  });

  test.each([
    ['MIT', true],
    ['(MIT OR GPL-3.0-only)', true],
    ['MIT AND GPL-3.0-only', false],
    ['AGPL-3.0-only', false],
    ['SEE LICENSE IN LICENSE.txt', false],
    ['none', false],
  ])('%s is allowed: %s', (license, is) => {
    expect(isAllowed(license)).toBe(is);
  });

  interface AuditReport {
    /** Missing where there was no answer. */
    metadata?: unknown;
    message?: string;
    vulnerabilities?: Record<string, {severity: string}>;
  }
  const severeHoles = ({vulnerabilities = {}}: AuditReport, names: readonly string[]) =>
    names.filter((name) => /high|critical/.test(vulnerabilities[name]?.severity ?? ''));

  test('has no known hole of high or critical severity', async () => {
    const audit = ['audit', '--json', '--fetch-retries', '0', '--fetch-timeout', '20000'];
    const {stdout} = await execa('npm', audit, {cwd: root, reject: false});
    const report = JSON.parse(stdout || '{}') as AuditReport;
    if (!report.metadata) {
      // Not every registry answers it, and not every machine has a network: that says nothing about the program.
      process.stderr.write(`npm audit is not available here: ${report.message ?? 'no answer'}\n`);
      return;
    }
    const names = (await shipped()).map(({name}) => name);
    expect(severeHoles(report, names)).toEqual([]);
  });

  test('is named when its hole is a high one', () => {
    const [moderate, high, critical] = ['moderate', 'high', 'critical'].map((severity) => ({severity}));
    const vulnerabilities = {a: moderate, b: high, c: critical, tool: high} as AuditReport['vulnerabilities'];
    expect(severeHoles({metadata: {}, vulnerabilities: vulnerabilities ?? {}}, ['a', 'b', 'c', 'd'])).toEqual([
      'b',
      'c',
    ]);
  });
});

describe('the repository', () => {
  const patterns: Record<string, RegExp> = {
    'private key': /-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[A-Za-z0-9+/=\s]{64}/,
    'AWS access key': /\b(?:AKIA|ASIA)[0-9A-Z]{16}\b/,
    'GitHub token': /\b(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_\w{50})/,
    'npm token': /\bnpm_[A-Za-z0-9]{36}\b/,
    'Slack token': /\bxox[abeoprs]-[\w-]{20}/,
    'Stripe key': /\b[rs]k_live_\w{20}/,
    'Google key': /\bAIza[\w-]{35}/,
    'web token': /\beyJ[\w-]{15,}\.eyJ[\w-]{15,}\.[\w-]{20}/,
    'encryption key': /(?:KEY|SECRET)\w*['"]?\s*[:=]\s*['"]?[0-9a-fA-F]{64}\b/,
    // On a host that can be there; those of the tests are a single word, this machine, or example.com.
    'URL with a password':
      /\b[a-z][a-z0-9+.-]*:\/\/[^\s:@/'"`]+:[^\s@/'"`$]{4,}@(?!127\.|[\w.-]*example\.(?:com|org))[\w-]+(?:\.[\w-]+)+/,
  };

  const secretsIn = (text: string) =>
    Object.entries(patterns).flatMap(([name, pattern]) => (pattern.test(text) ? [name] : []));

  test('holds no secret', async () => {
    const {stdout} = await execa('git', ['ls-files', '-z'], {cwd: root});
    const files = stdout.split('\0').filter(Boolean);
    expect(files.length).toBeGreaterThan(100);
    const found: string[] = [];
    for (const file of files) {
      // One that was deleted and not yet committed.
      const text = await readFile(path.join(root, file), 'latin1').catch(() => '');
      found.push(...secretsIn(text).map((name) => `${file}: ${name}`));
    }
    expect(found).toEqual([]);
  });

  // In pieces: this file is looked through, too.
  const word = (length: number) => 'aB3dE5fG7hJ9'.repeat(20).slice(0, length);
  test.each([
    ['private key', `-----BEGIN RSA ${'PRIVATE'} KEY-----\n${word(64)}\n`],
    ['AWS access key', `id = ${'AKIA'}${'ABCDEFGH01234567'}`],
    ['GitHub token', `ghp_${word(36)}`],
    ['GitHub token', `github_pat_${word(82)}`],
    ['npm token', `//registry/:_authToken=npm_${word(36)}`],
    ['Slack token', `xoxb-${word(30)}`],
    ['Stripe key', `sk_live_${word(24)}`],
    ['Google key', `AIza${word(35)}`],
    ['web token', `eyJ${word(20)}.eyJ${word(20)}.${word(43)}`],
    ['encryption key', `PHI_ENCRYPTION_KEY=${'0123456789abcdef'.repeat(4)}`],
    ['URL with a password', `postgresql://clinic:${'correct-horse'}@db.clinic.net:5432/clinic`],
  ])('would be found to hold a %s', (name, text) => {
    expect(secretsIn(`before ${text} after`)).toEqual([name]);
  });
});
