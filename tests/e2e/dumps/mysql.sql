-- A schema with some of everything that mysqldump writes, and 120,000 rows.
CREATE TABLE numbers (n INT PRIMARY KEY) ENGINE=InnoDB;
INSERT INTO numbers WITH RECURSIVE d (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM d WHERE n < 99)
SELECT 1 + a.n + 100 * b.n + 10000 * c.n FROM d AS a, d AS b, d AS c WHERE c.n < 10;
CREATE TABLE kinds (
    id INT UNSIGNED AUTO_INCREMENT PRIMARY KEY,
    `odd name;` TINYINT DEFAULT 5 COMMENT 'it''s; "odd"',
    i2 SMALLINT, i3 MEDIUMINT, i8 BIGINT UNSIGNED, n DECIMAL(20, 5), f FLOAT, d DOUBLE, b BIT(5), yes BOOLEAN,
    c CHAR(10), v VARCHAR(50) CHARACTER SET utf8mb4, l VARCHAR(20) CHARACTER SET latin1, t TEXT, mt MEDIUMTEXT,
    bin BINARY(4), vb VARBINARY(20), bl BLOB, dt DATE, dtm DATETIME(6), ts TIMESTAMP(3) NULL, tm TIME(2), y YEAR,
    e ENUM('a', 'b''c', '☃'), s SET('x', 'y', 'z'), j JSON, g GEOMETRY, p POINT,
    made INT AS (i2 * 2) STORED, guessed INT AS (i2 + 1) VIRTUAL,
    UNIQUE KEY by_v (v, i2), KEY by_t (t(20)), FULLTEXT KEY words (v)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COMMENT='some of "everything"';
INSERT INTO kinds (i2, i3, i8, n, f, d, b, yes, c, v, l, t, mt, bin, vb, bl, dt, dtm, ts, tm, y, e, s, j, g, p)
SELECT n, n * 10, 18446744073709551615 - n, n / 8, n / 4, n * 1e100, b'10101', n % 2, 'c', CONCAT('it''s "no." \\ ', n, ' ☃'), 'grüße', CONCAT('line\n', CHAR(9), n),
       REPEAT('long ', n % 50), x'00ff275c', x'0a0d1a', x'5c2200', '2026-01-01' + INTERVAL n DAY, '2026-01-02 03:04:05.678901', '2026-01-02 03:04:05.678', '-12:34:56.78',
       2026, 'b''c', 'x,z', JSON_OBJECT('n', n), ST_GeomFromText('LINESTRING(0 0, 1 1)'), ST_GeomFromText('POINT(1 2)')
FROM numbers WHERE n <= 5000;
INSERT INTO kinds () VALUES ();

CREATE TABLE orders (
    id INT NOT NULL AUTO_INCREMENT, placed DATE NOT NULL, total DECIMAL(10, 2), PRIMARY KEY (id, placed)
) ENGINE=InnoDB PARTITION BY RANGE (YEAR(placed)) (PARTITION p25 VALUES LESS THAN (2026), PARTITION p26 VALUES LESS THAN MAXVALUE);
INSERT INTO orders (placed, total) SELECT '2025-06-01' + INTERVAL n DIV 40 DAY, n / 100 FROM numbers WHERE n <= 15000;
CREATE TABLE `lines` (id INT PRIMARY KEY, line VARCHAR(100) CHARACTER SET utf8mb4 NOT NULL) ENGINE=InnoDB;
INSERT INTO `lines` SELECT n, CONCAT('line ', n, REPEAT(' ☃', n % 20)) FROM numbers WHERE n <= 100000;
CREATE TABLE child (id INT PRIMARY KEY, kind INT UNSIGNED, CONSTRAINT of_kind FOREIGN KEY (kind) REFERENCES kinds (id) ON DELETE CASCADE, CHECK (id > 0)) ENGINE=InnoDB;
INSERT INTO child VALUES (1, 1), (2, NULL);
CREATE TABLE old (id INT PRIMARY KEY, name VARCHAR(20)) ENGINE=MyISAM;
INSERT INTO old VALUES (1, 'old'), (2, NULL);
CREATE TABLE changes (id INT AUTO_INCREMENT PRIMARY KEY, what VARCHAR(50)) ENGINE=InnoDB;
CREATE VIEW cheap AS SELECT id, total FROM orders WHERE total < 10 WITH CHECK OPTION;
CREATE VIEW cheaper AS SELECT cheap.id FROM cheap JOIN kinds USING (id) WHERE cheap.total < 5;
CREATE TRIGGER child_added AFTER INSERT ON child FOR EACH ROW INSERT INTO changes (what) VALUES (CONCAT('added; ', NEW.id));
CREATE FUNCTION twice(n INT) RETURNS INT DETERMINISTIC RETURN n * 2;
CREATE PROCEDURE counts(IN wanted INT, OUT found INT) READS SQL DATA SELECT COUNT(*) INTO found FROM orders WHERE total > wanted;
CREATE EVENT nightly ON SCHEDULE EVERY 1 DAY DISABLE DO DELETE FROM changes WHERE id < 0;
