import {inspect} from 'node:util';
import {describe, expect, it} from '@jest/globals';
import fc from 'fast-check';
import {maskerFor, Secret} from '../../src/lib/secret.ts';

describe('a secret', () => {
  const secret = new Secret('hunter2-hunter2');

  it('is revealed when it is asked for by name', () => {
    expect(secret.reveal()).toBe('hunter2-hunter2');
  });

  it.each([
    ['a template', () => `${secret}`],
    ['a concatenation', () => `x${String(secret)}`],
    ['an array that is joined', () => [secret].join()],
    ['JSON', () => JSON.stringify({secret, list: [secret]})],
    ['util.inspect', () => inspect({deep: {secret}}, {depth: 9, showHidden: true})],
    ['the message of an error', () => inspect(new Error(`failed: ${secret}`))],
    ['its own members', () => JSON.stringify([Object.entries(secret), Object.getOwnPropertyNames(secret)])],
  ])('is not shown by %s', (_, show) => {
    expect(show()).not.toContain('hunter2');
  });

  it('says that it is one', () => {
    expect(`${secret}`).toBe('[secret]');
    expect(inspect(secret)).toBe('[secret]');
    expect(JSON.stringify(secret)).toBe('"[secret]"');
  });
});

describe('masking', () => {
  // What stands in a secret's place, `[secret]`, would hold one that is a part of it.
  const anySecret = fc
    .string({unit: 'grapheme', minLength: 4, maxLength: 20})
    .filter((text) => !/[[\]]/.test(text) && !'secret'.includes(text));

  it('leaves no known secret in a text, raw or percent-encoded, however they are strung together', () => {
    fc.assert(
      fc.property(
        fc.array(anySecret, {minLength: 1, maxLength: 4}),
        fc.array(fc.oneof(fc.string(), fc.nat({max: 3})), {maxLength: 8}),
        fc.boolean(),
        (secrets, pieces, encoded) => {
          const text = pieces
            .map((piece) => (typeof piece === 'string' ? piece : (secrets[piece % secrets.length] ?? '')))
            .map((piece) => (encoded ? encodeURIComponent(piece) : piece))
            .join('');
          const masked = maskerFor(secrets)(text);
          for (const secret of secrets) {
            expect(masked).not.toContain(secret);
            expect(masked).not.toContain(encodeURIComponent(secret));
          }
        },
      ),
      {numRuns: 500},
    );
  });

  it('takes the longer of two secrets that begin alike', () => {
    expect(maskerFor(['abcd', 'abcd-efgh'])('x abcd-efgh y abcd z')).toBe('x [secret] y [secret] z');
  });

  it('leaves text without secrets as it is', () => {
    const text = 'pg_dump: error: connection to server at "db" (10.0.0.1), port 5432 failed: time 12:30@noon';
    expect(maskerFor(['hunter2'])(text)).toBe(text);
  });

  it('leaves secrets of under four characters, which would garble every message', () => {
    expect(maskerFor(['a', '', 'abc'])('abc a')).toBe('abc a');
  });

  it('takes special characters of patterns and replacements for what they are', () => {
    expect(maskerFor(['a.*b$&', '$1$1'])('x a.*b$& axxb$& $1$1')).toBe('x [secret] axxb$& [secret]');
  });

  it.each([
    ['postgresql://ann:hunter2@db/clinic', 'postgresql://ann:[secret]@db/clinic'],
    ['cannot reach postgres://ann:p@ss:w/rd@db:5432/x now', 'cannot reach postgres://ann:[secret]@db:5432/x now'],
    ['"https://key:value@host"', '"https://key:[secret]@host"'],
    ['redis://:hunter2@cache', 'redis://:[secret]@cache'],
    ['POSTGRESQL://ann:hunter2@db', 'POSTGRESQL://ann:[secret]@db'],
    ['postgresql://ann@db/clinic', 'postgresql://ann@db/clinic'],
    ['https://host:443/path', 'https://host:443/path'],
  ])('takes the password out of a URL that nobody named as a secret: %s', (text, masked) => {
    expect(maskerFor([])(text)).toBe(masked);
  });
});
