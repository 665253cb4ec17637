import java.io.StringReader;
import java.sql.*;
import java.util.ArrayList;
import java.util.List;
import java.util.TimeZone;
import org.postgresql.PGConnection;

/** What applications do with JDBC, in front of a pool with one server connection: each check prints a line, or the program ends with an error. */
public class Traffic {
    interface Check { void run() throws Exception; }

    static String postgres, mysql;

    public static void main(String[] arguments) throws Exception {
        postgres = arguments[0];
        mysql = arguments[1];
        check("time zones", Traffic::timeZones);
        check("prepared statements", () -> { prepared(open(postgres + "&prepareThreshold=1")); prepared(open(mysql + "&useServerPrepStmts=true")); });
        check("two clients in turn", Traffic::inTurn);
        check("autosave", Traffic::autosave);
        check("batches", () -> { batch(postgres + "&reWriteBatchedInserts=true"); batch(postgres); batch(mysql + "&rewriteBatchedStatements=true"); batch(mysql + "&useServerPrepStmts=true"); });
        check("fetch size", () -> { fetch(postgres); fetch(mysql); });
        check("query timeout", () -> { timeout(postgres, "SELECT pg_sleep(30)"); timeout(mysql, "SELECT 1 FROM (SELECT 1 UNION SELECT 2) AS t WHERE SLEEP(15) = 0"); });
        check("copy", Traffic::copy);
        check("metadata", () -> { metadata(postgres); metadata(mysql); });
        check("read only and isolation", () -> { modes(postgres); modes(mysql); });
        check("validity", () -> { validity(postgres); validity(mysql); });
        for (String console : new String[] {arguments[2], arguments[2] + "&preferQueryMode=simple", arguments[2] + "&prepareThreshold=1", arguments[3], arguments[3] + "&useServerPrepStmts=true"})
            check("console", () -> console(console));
    }

    static void check(String name, Check check) throws Exception {
        try {
            check.run();
        } catch (Throwable error) {
            System.out.println("FAILED " + name + ": " + error);
            throw error;
        }
        System.out.println("ok " + name);
    }

    static Connection open(String url) throws SQLException {
        return DriverManager.getConnection(url);
    }

    static String one(Connection connection, String sql) throws SQLException {
        try (Statement statement = connection.createStatement(); ResultSet rows = statement.executeQuery(sql)) {
            rows.next();
            return rows.getString(1);
        }
    }

    static void same(Object wanted, Object got) {
        if (!wanted.equals(got)) throw new AssertionError("wanted " + wanted + ", got " + got);
    }

    /** The driver sends the time zone of the JVM at the start. */
    static void timeZones() throws SQLException {
        List<Connection> connections = new ArrayList<>();
        String[] zones = {"Europe/Vienna", "Asia/Tokyo", "America/New_York"};
        for (String zone : zones) {
            TimeZone.setDefault(TimeZone.getTimeZone(zone));
            connections.add(open(postgres));
        }
        for (int round = 0; round < 3; round++)
            for (int i = 0; i < zones.length; i++) same(zones[i], one(connections.get(i), "SHOW TimeZone"));
        for (Connection connection : connections) connection.close();
    }

    static void prepared(Connection connection) throws SQLException {
        try (connection; PreparedStatement sum = connection.prepareStatement("SELECT ? + 1")) {
            for (int i = 0; i < 12; i++) {
                sum.setInt(1, i);
                try (ResultSet rows = sum.executeQuery()) {
                    rows.next();
                    same(i + 1, rows.getInt(1));
                }
            }
        }
    }

    static void inTurn() throws SQLException {
        for (String url : new String[] {postgres + "&prepareThreshold=1", mysql + "&useServerPrepStmts=true"})
            try (Connection first = open(url); Connection second = open(url);
                    PreparedStatement a = first.prepareStatement("SELECT ? <> 'a'");
                    PreparedStatement b = second.prepareStatement("SELECT ? = 'b'")) {
                for (int i = 0; i < 10; i++)
                    for (PreparedStatement statement : new PreparedStatement[] {a, b}) {
                        statement.setString(1, "b");
                        try (ResultSet rows = statement.executeQuery()) {
                            rows.next();
                            same(true, rows.getBoolean(1));
                        }
                    }
            }
    }

    static void autosave() throws SQLException {
        for (String mode : new String[] {"always", "conservative"})
            try (Connection connection = open(postgres + "&prepareThreshold=1&autosave=" + mode)) {
                connection.setAutoCommit(false);
                same("1", one(connection, "SELECT 1"));
                if (mode.equals("always")) {
                    try {
                        one(connection, "SELECT nothing FROM nowhere");
                        throw new AssertionError("no error");
                    } catch (SQLException error) {
                        same("42P01", error.getSQLState());
                    }
                    same("2", one(connection, "SELECT 2"));
                }
                connection.commit();
            }
    }

    static void batch(String url) throws SQLException {
        try (Connection connection = open(url); Statement statement = connection.createStatement()) {
            String key = url.startsWith("jdbc:postgresql") ? "serial" : "int AUTO_INCREMENT";
            statement.execute("DROP TABLE IF EXISTS jdbc_batch");
            statement.execute("CREATE TABLE jdbc_batch (id " + key + " PRIMARY KEY, n int)");
            try (PreparedStatement insert = connection.prepareStatement("INSERT INTO jdbc_batch (n) VALUES (?)", Statement.RETURN_GENERATED_KEYS)) {
                for (int i = 0; i < 200; i++) {
                    insert.setInt(1, i);
                    insert.addBatch();
                }
                same(200, insert.executeBatch().length);
                int keys = 0;
                try (ResultSet rows = insert.getGeneratedKeys()) {
                    while (rows.next()) keys++;
                }
                same(200, keys);
            }
            same("19900", one(connection, "SELECT SUM(n) FROM jdbc_batch"));
            statement.execute("DROP TABLE jdbc_batch");
        }
    }

    static void fetch(String url) throws SQLException {
        String sql = "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 1000) SELECT n FROM s";
        try (Connection connection = open(url)) {
            connection.setAutoCommit(false);
            try (Statement statement = connection.createStatement()) {
                statement.setFetchSize(50);
                long sum = 0;
                try (ResultSet rows = statement.executeQuery(sql)) {
                    while (rows.next()) sum += rows.getInt("n");
                }
                same(500500L, sum);
            }
            connection.commit();
        }
    }

    static void timeout(String url, String sql) throws SQLException {
        try (Connection connection = open(url); Statement statement = connection.createStatement()) {
            statement.setQueryTimeout(1);
            try {
                statement.executeQuery(sql);
                throw new AssertionError("no error");
            } catch (SQLException error) {
                // 57014; MariaDB's own limit: 70100
            }
            same("1", one(connection, "SELECT 1"));
        }
    }

    static void copy() throws Exception {
        try (Connection connection = open(postgres); Statement statement = connection.createStatement()) {
            connection.setAutoCommit(false);
            statement.execute("CREATE TEMP TABLE jdbc_copy (n int) ON COMMIT DROP");
            same(3L, connection.unwrap(PGConnection.class).getCopyAPI().copyIn("COPY jdbc_copy FROM STDIN", new StringReader("1\n2\n3\n")));
            same("6", one(connection, "SELECT SUM(n) FROM jdbc_copy"));
            connection.commit();
        }
    }

    static void metadata(String url) throws SQLException {
        try (Connection connection = open(url)) {
            DatabaseMetaData about = connection.getMetaData();
            try (ResultSet rows = about.getTables(null, null, "%", new String[] {"TABLE"})) {
                while (rows.next()) rows.getString("TABLE_NAME");
            }
            if (about.getDatabaseProductVersion().isEmpty()) throw new AssertionError("no version");
        }
    }

    static void modes(String url) throws SQLException {
        try (Connection connection = open(url)) {
            connection.setTransactionIsolation(Connection.TRANSACTION_SERIALIZABLE);
            connection.setReadOnly(true);
            connection.setAutoCommit(false);
            same("1", one(connection, "SELECT 1"));
            same(Connection.TRANSACTION_SERIALIZABLE, connection.getTransactionIsolation());
            connection.rollback();
            connection.setReadOnly(false);
            try (Connection other = open(url)) {
                if (other.getTransactionIsolation() == Connection.TRANSACTION_SERIALIZABLE) throw new AssertionError("another client's isolation");
            }
        }
    }

    static void validity(String url) throws SQLException {
        try (Connection connection = open(url)) {
            same(true, connection.isValid(5));
            connection.setAutoCommit(false);
            Savepoint savepoint = connection.setSavepoint("here");
            same("1", one(connection, "SELECT 1"));
            connection.rollback(savepoint);
            connection.rollback();
        }
    }

    static void console(String url) throws SQLException {
        try (Connection connection = open(url); Statement statement = connection.createStatement()) {
            for (int i = 0; i < 7; i++)
                try (ResultSet rows = statement.executeQuery("SHOW POOLS")) {
                    rows.next();
                    rows.getInt("cl_active");
                }
            try (PreparedStatement show = connection.prepareStatement("SHOW STATS_TOTALS"); ResultSet rows = show.executeQuery()) {
                rows.next();
                rows.getLong("query_count");
            }
            statement.execute("PAUSE");
            statement.execute("RESUME");
            try {
                statement.execute("SHOW NONSENSE");
                throw new AssertionError("no error");
            } catch (SQLException error) {
                if (!error.getMessage().contains("SHOW HELP")) throw error;
            }
            same(true, connection.isValid(5));
        }
    }
}
