import {expect, it} from '@jest/globals';
import {lookAtTarget} from '../../../src/lib/load/target.ts';
import {sessionOf} from '../../../src/lib/operations/runtime.ts';
import {createDatabase} from '../../support/database.ts';
import {servers} from '../../support/sandbox.ts';
import {connectionTo, runtime} from '../../support/settings.ts';

const {postgres} = servers();

/** CVE-2018-1058: an operator that fits better than PostgreSQL's own would run as whoever asks. */
it('counts what a database holds with operators of PostgreSQL, not with those of its users', async () => {
  const database = await createDatabase(postgres, {
    sql: `CREATE TABLE patients (); CREATE TABLE ran ();
      CREATE FUNCTION hidden(name, name) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN INSERT INTO ran DEFAULT VALUES; RETURN false; END $$;
      CREATE OPERATOR !~ (LEFTARG = name, RIGHTARG = name, FUNCTION = hidden)`,
  });
  const facts = await lookAtTarget(await sessionOf(connectionTo(database.url), runtime()));
  expect(facts).toMatchObject({tables: 2, otherObjects: 1});
  expect(await database.query('SELECT count(*) FROM ran')).toBe('0');
  await database.drop();
});
