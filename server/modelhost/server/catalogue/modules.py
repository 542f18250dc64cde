"""What is known of Python modules: which package has them, and which versions of it do."""

import re

# Packages on the index whose name is not the module's; the last ones are backports for Python 2.7 or 3.6.
_DISTRIBUTIONS = {
    "sklearn": "scikit-learn",
    "skimage": "scikit-image",
    "imblearn": "imbalanced-learn",
    "cv2": "opencv-python-headless",
    "PIL": "Pillow",
    "yaml": "PyYAML",
    "dateutil": "python-dateutil",
    "bs4": "beautifulsoup4",
    "MySQLdb": "mysqlclient",
    "psycopg2": "psycopg2-binary",
    "ldap": "python-ldap",
    "Crypto": "pycryptodome",
    "OpenSSL": "pyOpenSSL",
    "jwt": "PyJWT",
    "git": "GitPython",
    "docx": "python-docx",
    "pptx": "python-pptx",
    "mpl_toolkits": "matplotlib",
    "pkg_resources": "setuptools",
    "Levenshtein": "python-Levenshtein",
    "slugify": "python-slugify",
    "dotenv": "python-dotenv",
    "serial": "pyserial",
    "usb": "pyusb",
    "zmq": "pyzmq",
    "google.protobuf": "protobuf",
    "osgeo": "GDAL",
    "concurrent": "futures",
    "enum": "enum34",
    "pathlib": "pathlib2",
}

# Packages that models are made with, and that have their module's name. What is not known may be a typing error, which
# nobody should install.
_SAME_NAME = {
    "arch", "attr", "bokeh", "boto3", "catboost", "chardet", "click", "cloudpickle", "cvxpy", "cvxopt",
    "cython", "dask", "dill", "fbprophet", "fiona", "flask", "future", "gensim", "geopandas", "h5py",
    "hmmlearn", "hyperopt", "joblib", "jsonschema", "keras", "kneed", "lifelines", "lightgbm", "lxml",
    "matplotlib", "mlflow", "mlxtend", "mock", "networkx", "nltk", "numba", "numexpr", "numpy", "openpyxl",
    "optuna", "ortools", "paho", "pandas", "patsy", "plotly", "pmdarima", "prophet", "psutil", "pulp",
    "pyarrow", "pymc3", "pymongo", "pymysql", "pyodbc", "pyomo", "pyproj", "pyspark", "pytz", "pywt",
    "rasterio", "redis", "requests", "scipy", "seaborn", "shap", "shapely", "simplejson", "six", "skopt",
    "spacy", "sqlalchemy", "statsmodels", "sympy", "tables", "tabulate", "tensorflow", "theano", "torch",
    "tqdm", "tsfresh", "urllib3", "xarray", "xgboost", "xlrd", "xlwt",
}  # fmt: skip

# The standard library of Python 2 that Python 3 has under other names, or not at all.
_OF_PYTHON_2 = frozenset(
    (
        "ConfigParser",
        "Cookie",
        "HTMLParser",
        "Queue",
        "SocketServer",
        "StringIO",
        "Tkinter",
        "UserDict",
        "UserList",
        "__builtin__",
        "anydbm",
        "cPickle",
        "cStringIO",
        "commands",
        "cookielib",
        "copy_reg",
        "dummy_thread",
        "exceptions",
        "httplib",
        "md5",
        "new",
        "sets",
        "sha",
        "thread",
        "urllib2",
        "urlparse",
        "xmlrpclib",
    )
)

# What packages have moved. The first pattern that fits a module is it.
_MOVED = tuple(
    (re.compile(pattern), requirement)
    for pattern, requirement in (
        (r"sklearn\.externals\b", "scikit-learn<0.23"),
        (r"sklearn\.(cross_validation|grid_search|learning_curve|lda|qda)$", "scikit-learn<0.20"),
        (r"sklearn\.neighbors\._(dist_metrics|typedefs)$", "scikit-learn<1.0"),
        (r"sklearn(\.\w+)*\._\w+$", "scikit-learn>=0.22"),
        (r"sklearn(\.\w+)+$", "scikit-learn<0.24"),
        (r"sklearn\.preprocessing:Imputer$", "scikit-learn<0.22"),
        (r"numpy\._core\b", "numpy>=2"),
        (r"pandas\.core\.indexes\.numeric$", "pandas<2"),
        (r"pandas\.core\.internals\.", "pandas>=0.24"),
        (r"pandas\._libs\.internals:_unpickle_block$", "pandas>=1.4"),
        (r"pandas\.core\.internals\.blocks:new_block$", "pandas>=1.3"),
        (r"pandas\.(indexes|tslib|tseries\.tools)\b", "pandas<0.20"),
        (r"scipy\.sparse\._(csr|csc|coo|data)$", "scipy>=1.8"),
        (r"(?P<package>sklearn|numpy|pandas|scipy|xgboost|lightgbm|statsmodels|keras|tensorflow|joblib)[.:]", ""),
    )
)

# Python 2.7 names only the end of a module that it does not find in a package.
_ENDS = {
    "_forest": "sklearn.ensemble._forest",
    "_gb": "sklearn.ensemble._gb",
    "_bagging": "sklearn.ensemble._bagging",
    "_weight_boosting": "sklearn.ensemble._weight_boosting",
    "_classes": "sklearn.tree._classes",
    "_logistic": "sklearn.linear_model._logistic",
    "_ridge": "sklearn.linear_model._ridge",
    "_coordinate_descent": "sklearn.linear_model._coordinate_descent",
    "_stochastic_gradient": "sklearn.linear_model._stochastic_gradient",
    "_classification": "sklearn.neighbors._classification",
    "_regression": "sklearn.neighbors._regression",
    "_unsupervised": "sklearn.neighbors._unsupervised",
    "_multilayer_perceptron": "sklearn.neural_network._multilayer_perceptron",
    "_data": "sklearn.preprocessing._data",
    "_label": "sklearn.preprocessing._label",
    "_pca": "sklearn.decomposition._pca",
    "_kmeans": "sklearn.cluster._kmeans",
    "_core": "numpy._core",
    "cross_validation": "sklearn.cross_validation",
}


def distribution_of(module: str) -> str:
    """Return the name by which pip installs what has the module."""
    return _DISTRIBUTIONS.get(module) or _DISTRIBUTIONS.get(module.partition(".")[0], module.partition(".")[0])


def is_known(module: str) -> bool:
    """Whether it is known which package has the module."""
    top = module.partition(".")[0]
    return module in _DISTRIBUTIONS or top in _DISTRIBUTIONS or top in _SAME_NAME


def is_of_python_2(module: str) -> bool:
    """Whether Python 2's standard library had the module, and no Python 3 has it."""
    return module.partition(".")[0] in _OF_PYTHON_2


def in_full(module: str) -> str:
    """Return the name in full of a module whose end is all that Python 2.7 told; else the name as it is."""
    return _ENDS.get(module, module)


def requirement_of_moved(place: str) -> str:
    """Return which versions of a package have `package.module`, or `package.module:name`: "pandas<2".

    It is the package's name alone where it is one that is known to move things; "" for all others.
    """
    for pattern, requirement in _MOVED:
        if match := pattern.match(place):
            return requirement or distribution_of(match["package"])
    return ""
